//! Standard output for commands that print much: buffered, and ended quietly by a reader who has seen enough.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

use anyhow::Result;

/// It could not be looked at, which says nothing of what is there. The same as for wrong arguments.
pub(crate) const NOT_DONE: u8 = 2;

pub(crate) type Output = BufWriter<StdoutLock<'static>>;

/// Runs a command that prints, and turns its end into an exit code.
pub(crate) fn printing(command: impl FnOnce(&mut Output) -> Result<ExitCode>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let ended = command(&mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    ended.unwrap_or_else(|error| {
        // As in `| head`.
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(closed) {
            return ExitCode::SUCCESS;
        }
        eprintln!("shopfloor: {error:#}");
        ExitCode::from(NOT_DONE)
    })
}
