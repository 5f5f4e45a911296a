//! A spool seen from outside, beside a live gateway or without one.
//!
//! Opens every file for reading only and takes no lock, so it can neither disturb nor delay whoever owns the
//! directory. What a live gateway changes in the meantime (segments that go, records that come) is told apart from
//! damage.
//!
//! Layout, in the order of a look: [`look`] takes the directory in, [`walk`] reads its records, [`follow`] those that
//! come later, [`verify`] checks all of it; [`holder`] tells which process has the spool.

mod follow;
mod holder;
mod look;
mod verify;
mod walk;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use follow::Follow;
pub use verify::{Fault, Problem};
pub use walk::{Step, Walk};

use super::filesystem::{Filesystem, StdFilesystem};

/// Why a spool cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("{}: there is no such directory; name the gateway's data directory, or its configuration", .dir.display())]
    NoDirectory { dir: PathBuf },
    #[error("{}: there is no spool in it; no gateway has stored anything here", .dir.display())]
    NoSpool { dir: PathBuf },
    #[error("cannot {operation} {}: {source}; the user needs to be allowed to read it", .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl InspectError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

/// What stood in the directory at one moment.
#[derive(Debug)]
pub struct Inspection {
    fs: Arc<dyn Filesystem>,
    dir: PathBuf,
    segments: Vec<SegmentView>,
    cursors: Vec<CursorView>,
    spares: usize,
    spare_bytes: u64,
    /// Found on the way; [`Inspection::verify`] reports them with the rest.
    problems: Vec<Problem>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentView {
    /// The file's name.
    pub name: String,
    /// What must stand in it; of the newest, what stands in it.
    pub sequences: Range<u64>,
    /// Of the file.
    pub len_bytes: u64,
    /// Where its records end, where it says so.
    pub end_offset: Option<u64>,
    pub created_ms: u64,
    /// Nothing is appended to it any more.
    pub sealed: bool,
    /// The gateway that it says it belongs to; empty where its header cannot be read.
    pub gateway_id: String,
    /// `None` where its header cannot be read, and so nothing else.
    salt: Option<u32>,
    /// What is damaged from here on may never have been acknowledged.
    proven_sequence: u64,
}

/// One sink's cursor, as it was saved last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorView {
    pub name: String,
    /// The next sequence to deliver; `None` where the file cannot be read.
    pub position: Option<u64>,
}

impl Inspection {
    /// Looks at the spool in `dir`: a page of each segment, and the end of the newest. Blocks.
    pub fn open(dir: &Path) -> Result<Self, InspectError> {
        look::look(Arc::new(StdFilesystem), dir)
    }

    /// The gateway whose spool it is; `None` where no header says so.
    pub fn gateway_id(&self) -> Option<&str> {
        let mut named = self.segments.iter().map(|segment| segment.gateway_id.as_str());
        named.rfind(|id| !id.is_empty())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Oldest first.
    pub fn segments(&self) -> &[SegmentView] {
        &self.segments
    }

    pub fn cursors(&self) -> &[CursorView] {
        &self.cursors
    }

    /// Recycled files that wait to become segments.
    pub fn spares(&self) -> usize {
        self.spares
    }

    /// Of all segments and spares, as `max_bytes` counts them.
    pub fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| segment.len_bytes).sum();
        segments + self.spare_bytes
    }

    /// The oldest record that is still there.
    pub fn first_sequence(&self) -> u64 {
        self.segments.first().map_or(1, |oldest| oldest.sequences.start)
    }

    /// The next that will be stored.
    pub fn next_sequence(&self) -> u64 {
        let stored = self.segments.last().map_or(1, |newest| newest.sequences.end);
        let confirmed = self.cursors.iter().filter_map(|cursor| cursor.position).max();
        stored.max(confirmed.unwrap_or(0))
    }

    /// Space left on its file system; `None` where that would not say.
    pub fn free_disk_bytes(&self) -> Option<u64> {
        self.fs.free_bytes(&self.dir).ok()
    }

    /// The process that has the spool open; `None` where this machine's kernel shows none.
    pub fn holder(&self) -> Option<u32> {
        holder::holder(&self.dir.join("lock"))
    }

    /// The records from `from` on.
    pub fn walk(&self, from: u64) -> Walk<'_> {
        Walk::new(self, from)
    }

    /// The records that come from `from` on, for as long as they come.
    pub fn follow(&self, from: u64) -> Follow {
        Follow::new(self.fs.clone(), self.dir.clone(), from)
    }

    /// Bytes on disk of the records from `from` on. Reads the segment in which that is.
    pub fn bytes_from(&self, from: u64) -> Result<u64, InspectError> {
        walk::bytes_from(self, from)
    }

    /// Reads every byte and tells every problem, in the order of the sequences.
    pub fn verify(&self, tell: &mut dyn FnMut(&Problem) -> io::Result<()>) -> Result<Verified, VerifyError> {
        verify::verify(self, tell)
    }

    /// The sinks that have not confirmed some of `sequences`.
    pub fn undelivered_to(&self, sequences: &Range<u64>) -> Vec<&str> {
        let behind = self
            .cursors
            .iter()
            .filter(|cursor| cursor.position.is_none_or(|position| position < sequences.end));
        behind.map(|cursor| cursor.name.as_str()).collect()
    }
}

/// What a verification went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: usize,
    pub records: u64,
    pub bytes: u64,
    pub problems: usize,
}

/// A verification that did not reach the end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Of the one who is told.
    #[error(transparent)]
    Told(io::Error),
}

#[cfg(test)]
mod tests;
