//! What can go wrong with a spool, for whoever opens it, appends to it or reads it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::Entry;

/// Called once with the sequences of the entries when they are durable, or with the reason why they are not.
pub type Done = Box<dyn FnOnce(Result<Range<u64>, SpoolError>) + Send>;

/// Why a spool cannot be opened, or could not store. Clone, since one fault answers many appends.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    #[error("{}: another process uses this spool; stop it or give this gateway a directory of its own", .dir.display())]
    Locked { dir: PathBuf },
    #[error(
        "{}: this spool belongs to gateway {found:?}, not {expected:?}; use its own directory or set that gateway id",
        .segment.display()
    )]
    OtherGateway {
        segment: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{}: format version {found} is not known here (this build knows {known}); use the newer build", .segment.display())]
    Version {
        segment: PathBuf,
        found: u32,
        known: u32,
    },
    #[error(
        "{name:?} is no gateway id or cursor name; use 1 to 64 of the characters a-z, A-Z, 0-9, '-', '_', '.'"
    )]
    Name { name: String },
    #[error(
        "segment_max_bytes {segment_max_bytes} cannot hold a commit of {commit_max_bytes} bytes and a header; raise it"
    )]
    Limits {
        segment_max_bytes: u64,
        commit_max_bytes: u64,
    },
    #[error("{operation} {}", .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("the spool closed while it was held back: {0}")]
    Held(Hold),
    #[error("the spool is closed")]
    Closed,
}

impl SpoolError {
    /// A word per kind, for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "locked",
            Self::OtherGateway { .. } => "other_gateway",
            Self::Version { .. } => "version",
            Self::Name { .. } => "name",
            Self::Limits { .. } => "limits",
            Self::Io { .. } => "io",
            Self::Held(_) => "held",
            Self::Closed => "closed",
        }
    }

    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

/// Why nothing is appended at the moment. It passes by itself when the cause does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// `max_bytes` is used up by entries that a sink has not confirmed.
    MaxBytes,
    /// The oldest entry that a sink has not confirmed is older than `max_age_s`.
    MaxAge,
    /// A further segment would leave less than `min_free_disk_bytes`.
    MinFreeDisk,
    /// The file system has no space (or no quota) left.
    DiskFull,
    /// The file system is read-only.
    ReadOnly,
    /// The process, or the machine, may open no further file.
    OpenFiles,
}

impl Hold {
    /// A word per reason, for metric labels.
    pub fn kind(self) -> &'static str {
        match self {
            Self::MaxBytes => "max_bytes",
            Self::MaxAge => "max_age",
            Self::MinFreeDisk => "min_free_disk",
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::OpenFiles => "open_files",
        }
    }

    /// The hold that an I/O error stands for; `None` where the error is a fault.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::DiskFull),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ => match Errno::from_io_error(error) {
                Some(Errno::MFILE | Errno::NFILE) => Some(Self::OpenFiles),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxBytes => "max_bytes is used up by undelivered entries",
            Self::MaxAge => "the oldest undelivered entry is older than max_age_s",
            Self::MinFreeDisk => "a further segment would leave less than min_free_disk_bytes",
            Self::DiskFull => "no space left on the file system",
            Self::ReadOnly => "the file system is read-only",
            Self::OpenFiles => {
                "too many files are open; raise the limit (`ulimit -n`, or LimitNOFILE= of the service)"
            }
        })
    }
}

/// An append that was not taken; everything is handed back.
pub enum Refused {
    /// The queue is full or the spool is held back: wait for [`super::Spool::room`], then try again.
    Busy(Vec<Entry>, Done),
    /// More than `commit_max_bytes` in one call: it will never be taken as it is.
    TooLarge(Vec<Entry>, Done),
    /// The spool was closed, or stopped by a fault ([`super::Spool::fault`]).
    Closed(Vec<Entry>, Done),
}

impl Refused {
    /// A word per kind, for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Busy(..) => "busy",
            Self::TooLarge(..) => "too_large",
            Self::Closed(..) => "closed",
        }
    }

    pub fn into_parts(self) -> (Vec<Entry>, Done) {
        match self {
            Self::Busy(entries, done) | Self::TooLarge(entries, done) | Self::Closed(entries, done) => {
                (entries, done)
            }
        }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Why a reader gave no entries.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// These sequences cannot be read any more. The reader stands behind them: the next call goes on.
    #[error("sequences {} to {} are lost: {cause}", .sequences.start, .sequences.end.saturating_sub(1))]
    Lost { sequences: Range<u64>, cause: Cause },
    /// The disk would not answer. The reader has not moved: try again later.
    #[error("{operation} {}", .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: Arc<io::Error>,
    },
    /// The spool is closed, and everything durable in it has been read.
    #[error("the spool is closed and read to its end")]
    Closed,
}

impl ReadError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

/// Why sequences cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The bytes on disk fail their checksum. Acknowledged entries are lost.
    Corrupt,
    /// As `Corrupt`, but in the last commit before a crash, which may never have been acknowledged.
    CorruptOrTorn,
    /// No segment holds them: it was removed by hand, or every cursor had passed it.
    Removed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "their bytes on disk fail the checksum",
            Self::CorruptOrTorn => "the last commit before a crash was damaged or never finished",
            Self::Removed => "no segment holds them",
        })
    }
}
