//! Why a part did not start, stop or answer, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};

#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error("{program} is not installed: {remedy}")]
    NotInstalled { program: String, remedy: String },
    #[error(
        "{part} cannot run as root and no user `postgres` or `nobody` exists: add one, or start as another user"
    )]
    NoUnprivilegedUser { part: &'static str },
    #[error(
        "user {user} cannot reach {}: allow it to pass ({remedy}), or choose a directory elsewhere",
        path.display()
    )]
    OutOfReach {
        user: String,
        path: PathBuf,
        remedy: String,
    },
    #[error("{part} ended with {status} before it was ready; its log {} ends with:\n{tail}", log.display())]
    Exited {
        part: &'static str,
        status: ExitStatus,
        log: PathBuf,
        tail: String,
    },
    #[error("{part} was not ready within {within_s} s; its log {} ends with:\n{tail}", log.display())]
    NotReady {
        part: &'static str,
        within_s: u64,
        log: PathBuf,
        tail: String,
    },
    #[error("{part}: {command} failed with {status}: {said}")]
    Failed {
        part: &'static str,
        command: String,
        status: ExitStatus,
        said: String,
    },
    #[error("`{name}` is no name for a {what}: use 1 to 63 of a-z, 0-9 and _, a letter first")]
    BadName { what: &'static str, name: String },
    #[error("cannot {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

/// Says what was being done when the system refused it.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PartError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PartError> {
        self.map_err(|source| PartError::Io {
            doing: what(),
            source,
        })
    }
}

/// The output of a helper program that succeeded, else what it said.
pub(super) fn succeeded(part: &'static str, command: &str, output: Output) -> Result<Output, PartError> {
    if output.status.success() {
        return Ok(output);
    }
    Err(PartError::Failed {
        part,
        command: command.to_owned(),
        status: output.status,
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
