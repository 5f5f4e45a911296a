//! Why the database of sessions cannot be opened.

use std::path::PathBuf;

/// Why the store of sessions cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PersistenceError {
    #[error("cannot create {}", .dir.display())]
    Create { dir: PathBuf, source: std::io::Error },
    #[error("{}: another process uses these sessions; stop it or give this gateway a directory of its own", .path.display())]
    Locked { path: PathBuf },
    #[error("cannot use {}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{}: sessions and retained messages cannot be read; restore the file, or move it away to begin without them \
         (messages in the spool do not depend on it)",
        .path.display()
    )]
    Unreadable { path: PathBuf, source: Box<redb::Error> },
    #[error("{}: format version {found} is not known here (this build knows {known}); use the newer build", .path.display())]
    Version { path: PathBuf, found: u64, known: u64 },
    #[error("no thread for writing sessions")]
    Thread(#[source] std::io::Error),
}
