//! Which QoS 2 exchanges are open, over a crash.
//!
//! A QoS 2 publish must be in the spool exactly once, however often its client repeats it. So the message and its
//! packet identifier become durable in one step: the record's envelope carries the [`Exchange`]. Two writes would
//! leave a crash between them, which stores the message twice (identifier second) or never (identifier first).
//! PUBREL becomes an entry of its own, durable before PUBCOMP: an exchange that stayed open by mistake would swallow
//! the next message with that identifier.
//!
//! One can stay open without a mistake of ours: its gateway dies, the client ends it at another one and comes back, or it
//! lost its own state. So an exchange knows its content, and a PUBLISH repeats it only with the same content and the DUP
//! flag, which a resend must have [MQTT-3.3.1-1]. Anything else is a new message: it is stored, and its record takes the
//! identifier over. A client that resends without DUP is stored twice for that; the other choice loses messages.
//!
//! The open exchanges are what the spool's records say, read in order. Memory follows as commits become durable (only
//! batches that have QoS 2 in them touch the lock), and once a second a checkpoint says what was open as of sequence S;
//! the cursor moves to S after it, so an exchange that stays open for days keeps no segment. A start reads the
//! checkpoint and then the spool from S. Reading what the checkpoint has seen already changes nothing: for each
//! exchange the last record counts.
//!
//! Where the checkpoint or records behind it cannot be read, everything that was open before is taken for released:
//! a message may then be stored twice, but none is swallowed. An error says so.
//!
//! ```text
//! checkpoint   "SHOPEXCH", version u32, sequence u64, sessions u32
//!              session: number u64, exchanges u32, of each identifier u16, content u32
//!              crc u32, CRC32C over all that precedes
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut};
use shopfloor_broker::tap::Exchange;
use tokio_util::sync::CancellationToken;

use crate::record::{Destination, Envelope};
use crate::spool::{Cursor, ReadError, Spool};

/// Name of the cursor, which is no sink's.
pub const EXCHANGES: &str = "exchanges";
/// A restart reads at most about so much of the spool again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
const MAGIC: &[u8; 8] = b"SHOPEXCH";
const VERSION: u32 = 2;
/// Most records and bytes of one read.
const MAX_READ_RECORDS: usize = 10_000;
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// What one record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Opened(Exchange),
    Released(Exchange),
}

/// The open exchanges. Shared by the tap, the spool's writer thread and the task that saves them.
#[derive(Debug)]
pub(crate) struct Exchanges {
    path: PathBuf,
    cursor: Cursor,
    open: Mutex<Open>,
    /// Everything before this sequence is in `open`.
    applied: AtomicU64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Open {
    /// Content by packet identifier.
    by_session: HashMap<u64, BTreeMap<u16, u32>>,
    /// Differs from the checkpoint on disk.
    changed: bool,
}

impl Open {
    fn apply(&mut self, event: Event) {
        self.changed = true;
        match event {
            Event::Opened(exchange) => {
                let open = self.by_session.entry(exchange.session).or_default();
                open.insert(exchange.packet_id, exchange.content);
            }
            Event::Released(Exchange {
                session, packet_id, ..
            }) => {
                if let Some(open) = self.by_session.get_mut(&session) {
                    open.remove(&packet_id);
                    if open.is_empty() {
                        self.by_session.remove(&session);
                    }
                }
            }
        }
    }

    fn forget(&mut self) {
        self.by_session.clear();
        self.changed = true;
    }
}

/// Why the open exchanges cannot be recovered or kept.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", .path.display())]
pub struct CheckpointError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Exchanges {
    /// Reads the checkpoint in `dir` and the records of the spool behind it. Blocks.
    pub(crate) fn recover(dir: &Path, spool: &Spool) -> Result<Self, RecoveryError> {
        let known = spool
            .status()
            .cursors
            .iter()
            .any(|cursor| cursor.name == EXCHANGES);
        let cursor = spool.cursor(EXCHANGES)?;
        let path = dir.join(EXCHANGES);
        let (mut open, from) = match read(&path) {
            // Between the two nothing was opened or released, and segments may be gone.
            Ok(Some((open, sequence))) => (open, sequence.max(cursor.position())),
            Ok(None) if !known => (Open::default(), cursor.position()),
            found => {
                let why = match found {
                    Err(error) => error.to_string(),
                    Ok(_) => "it is not there".to_owned(),
                };
                tracing::error!(
                    path = %path.display(),
                    why,
                    "the checkpoint of open QoS 2 exchanges is unusable; those that were open are taken for released, so \
                     their clients may store a message twice, and none is lost"
                );
                let forgotten = Open {
                    changed: true,
                    ..Open::default()
                };
                (forgotten, cursor.position())
            }
        };
        let next = spool.status().next_sequence;
        replay(spool, from, next, &mut open)?;
        Ok(Self {
            path,
            cursor,
            open: Mutex::new(open),
            applied: AtomicU64::new(next),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything before `end` is durable; `events` is what the batch that ends there brought. In the order of the
    /// sequences: called on the spool's writer thread.
    pub(crate) fn apply(&self, events: &[Event], end: u64) {
        if !events.is_empty() {
            let mut open = self.lock();
            for event in events {
                open.apply(*event);
            }
        }
        self.applied.fetch_max(end, Ordering::Release);
    }

    pub(crate) fn by_session(&self) -> HashMap<u64, Vec<Exchange>> {
        let exchanges = |(session, open): (&u64, &BTreeMap<u16, u32>)| {
            let exchange = |(packet_id, content): (&u16, &u32)| Exchange {
                session: *session,
                packet_id: *packet_id,
                content: *content,
            };
            (*session, open.iter().map(exchange).collect())
        };
        self.lock().by_session.iter().map(exchanges).collect()
    }

    pub(crate) fn forget_session(&self, session: u64) {
        let mut open = self.lock();
        if open.by_session.remove(&session).is_some() {
            open.changed = true;
        }
    }

    /// Saves checkpoints until `stop`, and a last one then.
    pub(crate) async fn run(self: std::sync::Arc<Self>, stop: CancellationToken) {
        loop {
            let stopped = tokio::time::timeout(CHECKPOINT_INTERVAL, stop.cancelled())
                .await
                .is_ok();
            let this = self.clone();
            let saved = tokio::task::spawn_blocking(move || this.save()).await;
            if let Ok(Err(error)) = saved {
                let cause = &error.source;
                tracing::warn!(%error, %cause, "open QoS 2 exchanges were not saved; the spool keeps their records");
            }
            if stopped {
                return;
            }
        }
    }

    /// Writes a checkpoint if something changed, then moves the cursor.
    pub(crate) fn save(&self) -> Result<(), CheckpointError> {
        let (snapshot, sequence) = {
            let mut open = self.lock();
            // What is applied later than this look is in the records that a start reads again.
            let sequence = self.applied.load(Ordering::Acquire);
            let changed = std::mem::take(&mut open.changed);
            (changed.then(|| encode(&open, sequence)), sequence)
        };
        if let Some(bytes) = snapshot
            && let Err((operation, source)) = write(&self.path, &bytes)
        {
            self.lock().changed = true;
            return Err(CheckpointError {
                operation,
                path: self.path.clone(),
                source,
            });
        }
        self.cursor.advance(sequence);
        Ok(())
    }
}

/// Why a start cannot know the open exchanges.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Spool(#[from] crate::spool::SpoolError),
    #[error("the spool cannot be read from sequence {from} on")]
    Read { from: u64, source: ReadError },
    #[error("no thread for reading the spool")]
    Thread(#[from] io::Error),
}

/// Applies the records from `from` to `next`. On a thread of its own, since the caller may be inside a runtime.
fn replay(spool: &Spool, from: u64, next: u64, open: &mut Open) -> Result<(), RecoveryError> {
    if from >= next {
        return Ok(());
    }
    let read = || -> Result<(), RecoveryError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(replay_with(spool, from, next, open))
    };
    let read = std::thread::scope(|scope| scope.spawn(read).join());
    read.map_err(|_| io::Error::other("the reading thread crashed"))?
}

async fn replay_with(spool: &Spool, from: u64, next: u64, open: &mut Open) -> Result<(), RecoveryError> {
    let mut reader = spool.reader_at(from);
    while reader.position() < next {
        match reader.next(MAX_READ_RECORDS, MAX_READ_BYTES).await {
            Ok(batch) => {
                let events = batch.iter().filter_map(|stored| event(&stored.meta));
                events.for_each(|event| open.apply(event));
            }
            Err(ReadError::Lost { sequences, cause }) => {
                tracing::error!(
                    first = sequences.start,
                    last = sequences.end.saturating_sub(1),
                    %cause,
                    "records that may have released QoS 2 exchanges are lost; all that were open are taken for released, so \
                     their clients may store a message twice, and none is swallowed"
                );
                open.forget();
            }
            Err(source) => return Err(RecoveryError::Read { from, source }),
        }
    }
    Ok(())
}

/// What a record does; one that cannot be read does nothing.
fn event(meta: &[u8]) -> Option<Event> {
    let envelope = Envelope::decode(meta).ok()?;
    let exchange = envelope.exchange?;
    Some(match envelope.destination {
        Destination::Release => Event::Released(exchange),
        _ => Event::Opened(exchange),
    })
}

fn encode(open: &Open, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_slice(MAGIC);
    bytes.put_u32_le(VERSION);
    bytes.put_u64_le(sequence);
    // Sessions are bounded by the front, identifiers by their type.
    bytes.put_u32_le(open.by_session.len() as u32);
    for (session, exchanges) in &open.by_session {
        bytes.put_u64_le(*session);
        bytes.put_u32_le(exchanges.len() as u32);
        for (packet_id, content) in exchanges {
            bytes.put_u16_le(*packet_id);
            bytes.put_u32_le(*content);
        }
    }
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    bytes
}

/// `None` where the bytes are no checkpoint.
fn decode(bytes: &[u8]) -> Option<(Open, u64)> {
    let (body, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc.try_get_u32_le().ok()? != crc32c::crc32c(body) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    if rest.try_get_u32_le().ok()? != VERSION {
        return None;
    }
    let sequence = rest.try_get_u64_le().ok()?;
    let mut open = Open::default();
    for _ in 0..rest.try_get_u32_le().ok()? {
        let session = rest.try_get_u64_le().ok()?;
        let mut exchanges = BTreeMap::new();
        for _ in 0..rest.try_get_u32_le().ok()? {
            exchanges.insert(rest.try_get_u16_le().ok()?, rest.try_get_u32_le().ok()?);
        }
        open.by_session.insert(session, exchanges);
    }
    rest.is_empty().then_some((open, sequence))
}

fn read(path: &Path) -> io::Result<Option<(Open, u64)>> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes)
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its bytes are damaged")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file, durably: either the old or the new one is there after a crash.
fn write(path: &Path, bytes: &[u8]) -> Result<(), (&'static str, io::Error)> {
    let new_path = path.with_extension("tmp");
    let mut file = File::create(&new_path).map_err(|error| ("create a new version of", error))?;
    file.write_all(bytes).map_err(|error| ("write", error))?;
    file.sync_all().map_err(|error| ("sync", error))?;
    fs::rename(&new_path, path).map_err(|error| ("replace", error))?;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| ("sync the directory of", error))
}

#[cfg(test)]
mod tests;
