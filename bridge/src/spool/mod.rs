//! The spool: a durable, segmented, append-only log between the MQTT front and the sinks.
//!
//! # Constraints
//!
//! - An entry is acknowledged only when fdatasync has returned for it; then it is read by every cursor, in order,
//!   whatever dies in between.
//! - Appending never blocks: what cannot be taken is handed back, and nothing accepted is dropped.
//! - Everything is bounded: files, free disk, age, queue, commit, memory for readers.
//! - Entries are opaque: the spool knows nothing of MQTT, routes or Kafka.
//! - One process at a time has the directory (file `lock`).
//!
//! # On disk
//!
//! All integers are little endian. Sequences begin at 1 and have no gaps.
//!
//! ```text
//! segment-{first sequence, 20 digits}     allocated at once, segment_max_bytes long
//! cursor-{name}                           two slots in turn: "CURS", generation u64, position u64, crc u32
//! spare-{number}                          a file whose segment was delivered, to be written over
//! *.tmp                                   not finished; removed at the next start
//! lock
//!
//! segment   0     header    "SHOPSPOL", version u32, salt u32, first sequence u64, created ms u64, reach u64,
//!                           gateway id (length u8, bytes); zeroes; crc u32 at 508
//!           512   progress  "PROG", generation u64, end offset u64, end sequence u64, next commit u32,
//!           1024  progress  sealed u32, proven sequence u64, crc u32; two slots, written in turn
//!           2048  header    again
//!           4096  records   one behind the other
//!
//! record    crc u32         CRC32C over all that follows, started with the salt
//!           payload length u32, meta length u32
//!           commit u32      ordinal of the commit in the segment
//!           sequence u64
//!           meta, payload
//! ```
//!
//! The salt is random: neither a payload made to look like a record nor what an earlier life left in a recycled
//! file passes as one. A progress slot says what was durable when it was written; it goes to disk along with a
//! later commit, at least once in every `commit_max_bytes`, and after 100 ms without appends.
//!
//! # Operations
//!
//! - **Append**: the queue takes the call; the writer thread takes all that waits, as far as it fits one commit,
//!   copies small payloads behind their headers, leaves large ones where they are, writes it all with `pwritev`,
//!   syncs once and answers all. While it syncs the next commit gathers.
//! - **New segment**: header into `segment.tmp` (or a spare), fdatasync, rename, directory fsync.
//! - **Failed write or fdatasync**: the kernel may have dropped the pages and calls them clean, so they are not
//!   synced again: the segment is given up and the same entries, with the same sequences, go to a new one. Whatever
//!   of them stands in the old one lies behind the first sequence of the next, and does not count. After three
//!   segments the spool stops; nothing of the commit was acknowledged.
//! - **Full** (`max_bytes`, `max_age_s`, `min_free_disk_bytes`, ENOSPC, read-only): appends are refused as busy,
//!   what was accepted waits, and all goes on by itself when there is room.
//! - **Read**: from the commits that memory still has, else from disk in large pieces, every record checked.
//!   Sequences without a whole record are reported, with their range, and stepped over.
//! - **Delivered**: cursors are saved by the keeper thread; segments that every saved cursor has passed are recycled
//!   (fdatasync into blocks that were written before takes half the time) or removed.
//! - **Restart**: one page of each segment, and of the newest at most three commits behind its last progress slot.
//!   The torn end is cut by sealing the segment there; a new one is begun for what comes.
//!
//! # Invariants
//!
//! 1. A commit is written only after the one before it is durable. So a whole record proves that all earlier commits
//!    were: damage before it is loss, and reported; only the newest commit can be torn.
//! 2. A segment ends where the next begins, so a reader knows every sequence that a segment must hold: whatever is
//!    not there is reported.
//! 3. No sequence that was acknowledged, or that a cursor has passed, is ever given out again.
//! 4. No byte is written behind bytes of an earlier run: a restart begins a new segment.
//! 5. A saved cursor is never ahead of what its sink has confirmed; a segment is removed only when all saved
//!    cursors are behind it.
//!
//! # Files, in the order of the data
//!
//! `queue` (appends wait), `writer` (the thread), `log` (the segment that grows), `commit` and `format` (bytes),
//! `hot` and `cold` (memory, disk), `reader`, `cursor` and `cursor_file`, `keeper` (the second thread), `recovery`; `catalog` knows the
//! segments, `shared` holds all together, `filesystem` is the only way to the disk. [`inspect`] looks at a spool from
//! outside, whoever has it open.

mod catalog;
mod cold;
mod commit;
mod config;
mod cursor;
mod cursor_file;
mod error;
mod filesystem;
mod format;
mod hot;
pub mod inspect;
mod keeper;
mod log;
mod mutex;
mod queue;
mod reader;
mod recovery;
mod shared;
mod status;
mod writer;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use config::SpoolConfig;
pub use cursor::Cursor;
pub use error::{Cause, Done, Hold, ReadError, Refused, SpoolError};
pub use reader::Reader;
pub use recovery::{Recovery, Torn};
pub use status::{CursorStatus, Status};

use filesystem::{Filesystem, StdFilesystem};
use mutex::lock;
use shared::{Shared, check_name};
use writer::Writer;

/// What is stored. Both parts are opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub meta: Bytes,
    pub payload: Bytes,
}

/// What is read. The slices share the buffer of a commit or of a read (about `commit_max_bytes`, or 1 MiB), which
/// lives as long as any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub sequence: u64,
    pub meta: Bytes,
    pub payload: Bytes,
}

/// A handle; clones share the spool. It closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    _closes: Arc<CloseOnDrop>,
}

#[derive(Debug)]
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Spool {
    /// Opens or creates the spool in `dir`, recovers it and starts its two threads. Reads and syncs: blocks.
    pub fn open(dir: &Path, gateway_id: &str, config: SpoolConfig) -> Result<Self, SpoolError> {
        Self::open_on(Arc::new(StdFilesystem), dir, gateway_id, config)
    }

    fn open_on(
        fs: Arc<dyn Filesystem>,
        dir: &Path,
        gateway_id: &str,
        config: SpoolConfig,
    ) -> Result<Self, SpoolError> {
        check_name(gateway_id)?;
        if !config.is_workable() {
            let SpoolConfig {
                segment_max_bytes,
                commit_max_bytes,
                ..
            } = config;
            return Err(SpoolError::Limits {
                segment_max_bytes,
                commit_max_bytes,
            });
        }
        fs.create_dir_all(dir)
            .map_err(|source| SpoolError::io("create", dir, source))?;
        let lock = fs.lock(&dir.join("lock")).map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => SpoolError::Locked { dir: dir.to_owned() },
            _ => SpoolError::io("lock", dir, source),
        })?;
        let shared = Arc::new(Shared::recover(fs, dir, gateway_id, config)?);
        shared.recovery.tell(dir);
        start(&shared, lock).map_err(|source| SpoolError::io("start the threads of", dir, source))?;
        Ok(Self {
            _closes: Arc::new(CloseOnDrop(shared.clone())),
            shared,
        })
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    /// Stores the entries with consecutive sequences, behind those of every earlier call. Never blocks. `done` runs
    /// on the writer thread once they are durable, or have failed; it should only pass the word on.
    pub fn append(&self, entries: Vec<Entry>, done: Done) -> Result<(), Refused> {
        self.shared.queue.push(entries, done)
    }

    /// Resolves when an append that was refused as busy is worth another try (or will be refused as closed).
    pub async fn room(&self) {
        self.shared.queue.room().await;
    }

    /// The durable cursor of this name. A new one begins at the oldest entry. From then on, in this run and all
    /// later ones, entries are kept until it has passed them. Syncs a new one: blocks.
    pub fn cursor(&self, name: &str) -> Result<Cursor, SpoolError> {
        check_name(name)?;
        let shared = &self.shared;
        let mut cursors = lock(&shared.cursors);
        let state = match cursors.iter().find(|cursor| cursor.name == name) {
            Some(state) => state.clone(),
            None => {
                let state = cursor_file::create(&*shared.fs, &shared.dir, name, shared.first_sequence())
                    .map_err(|source| SpoolError::io("create cursor in", &shared.dir, source))?;
                cursors.push(state.clone());
                state
            }
        };
        Ok(Cursor {
            state,
            shared: shared.clone(),
        })
    }

    /// Forgets a cursor that no sink uses any more, so that it keeps nothing. Blocks as [`Self::cursor`] does.
    pub fn forget_cursor(&self, name: &str) -> Result<(), SpoolError> {
        check_name(name)?;
        let shared = &self.shared;
        let mut cursors = lock(&shared.cursors);
        if let Some(index) = cursors.iter().position(|cursor| cursor.name == name) {
            cursor_file::remove(&*shared.fs, &shared.dir, name)
                .map_err(|source| SpoolError::io("remove cursor from", &shared.dir, source))?;
            cursors.remove(index);
        }
        Ok(())
    }

    /// Reads from the cursor's position on. The reader does not move the cursor.
    pub fn reader(&self, cursor: &Cursor) -> Reader {
        self.reader_at(cursor.position())
    }

    /// Reads from `sequence` on, without a claim on what it reads: removed entries are reported as lost.
    pub fn reader_at(&self, sequence: u64) -> Reader {
        Reader::new(self.shared.clone(), sequence)
    }

    /// Asks the file system for its free space: blocks, briefly.
    pub fn status(&self) -> Status {
        status::status(&self.shared)
    }

    /// The fault that stopped the spool, if one did. The gateway must end: nothing is stored any more.
    pub fn fault(&self) -> Option<SpoolError> {
        lock(&self.shared.fault).clone()
    }

    /// Takes nothing more, stores what was accepted, saves the cursors, seals the log and releases the directory.
    /// Call it when the sinks have stopped: a cursor that is advanced later is not saved.
    pub async fn close(&self) -> Result<(), SpoolError> {
        self.shared.queue.close();
        let mut durable = self.shared.durable.subscribe();
        // The sender lives in `shared`.
        let _closed = durable.wait_for(|durable| !durable.open).await;
        self.fault().map_or(Ok(()), Err)
    }
}

/// The keeper ends with the writer, and the lock is released after both.
fn start(shared: &Arc<Shared>, lock: Box<dyn Any + Send>) -> std::io::Result<()> {
    let kept = shared.clone();
    let keeper = std::thread::Builder::new()
        .name("spool-keeper".into())
        .spawn(move || keeper::run(&kept))?;
    let writing = shared.clone();
    let work = move || {
        let mut writer = Writer::new(writing.clone());
        writer.run();
        writer.end();
        writing.stop_keeper();
        let _panicked = keeper.join();
        drop(lock);
        writing.durable.send_modify(|durable| durable.open = false);
    };
    let started = std::thread::Builder::new()
        .name("spool-writer".into())
        .spawn(work);
    started
        .map(|_runs_until_closed| ())
        .inspect_err(|_| shared.stop_keeper())
}
