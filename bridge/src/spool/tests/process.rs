//! The spool without its threads, so that a test decides what happens when, and the model that it is held to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;

use super::fake::FakeFilesystem;
use crate::spool::cursor_file;
use crate::spool::mutex::lock;
use crate::spool::shared::Shared;
use crate::spool::writer::{Outcome, Writer};
use crate::spool::{
    Cause, Cursor, Entry, ReadError, Reader, Refused, SpoolConfig, SpoolError, Stored, keeper, queue,
};

pub(super) const DIR: &str = "/spool";

/// One run of the spool.
pub(super) struct Process {
    pub shared: Arc<Shared>,
    pub writer: Writer,
    /// Taken by the writer, and not stored yet.
    pub jobs: Vec<queue::Job>,
}

impl Process {
    pub(super) fn start(disk: &FakeFilesystem, config: &SpoolConfig) -> Result<Self, SpoolError> {
        let shared = Arc::new(Shared::recover(
            disk.process(),
            Path::new(DIR),
            "line-1",
            config.clone(),
        )?);
        Ok(Self {
            writer: Writer::new(shared.clone()),
            shared,
            jobs: Vec::new(),
        })
    }

    /// One turn of the writer thread; `None` where there was nothing to do.
    pub(super) fn write(&mut self) -> Option<Outcome> {
        if self.jobs.is_empty() {
            let room_bytes = self.writer.remaining_bytes();
            let commit_max_bytes = self.shared.config.commit_max_bytes;
            let idle = Some(std::time::Duration::ZERO);
            self.shared
                .queue
                .take(room_bytes, commit_max_bytes, idle, &mut self.jobs);
        }
        (!self.jobs.is_empty()).then(|| self.writer.store(&mut self.jobs))
    }

    pub(super) fn keep(&self) {
        keeper::keep(&self.shared);
    }

    pub(super) fn cursor(&self, name: &str) -> Result<Cursor, std::io::Error> {
        let mut cursors = lock(&self.shared.cursors);
        let state = match cursors.iter().find(|cursor| cursor.name == name) {
            Some(state) => state.clone(),
            None => {
                let first = self.shared.first_sequence();
                let state = cursor_file::create(&*self.shared.fs, &self.shared.dir, name, first)?;
                cursors.push(state.clone());
                state
            }
        };
        Ok(Cursor {
            state,
            shared: self.shared.clone(),
        })
    }

    pub(super) fn end_sequence(&self) -> u64 {
        self.shared.durable.borrow().end_sequence
    }

    pub(super) fn reader_at(&self, sequence: u64) -> Reader {
        Reader::new(self.shared.clone(), sequence)
    }
}

/// Everything that can be read from `reader` without waiting for more.
pub(super) async fn read_all(reader: &mut Reader) -> Vec<Result<Stored, ReadError>> {
    let mut all = Vec::new();
    loop {
        let at_end = reader.position() >= reader.end_sequence();
        let next = if at_end {
            let mut next = std::pin::pin!(reader.next(7, 3000));
            match futures_util::poll!(&mut next) {
                Poll::Ready(next) => next,
                Poll::Pending => return all,
            }
        } else {
            reader.next(7, 3000).await
        };
        match next {
            Ok(stored) => all.extend(stored.into_iter().map(Ok)),
            Err(ReadError::Closed) => return all,
            Err(error @ ReadError::Io { .. }) => {
                all.push(Err(error));
                return all;
            }
            Err(lost) => all.push(Err(lost)),
        }
    }
}

/// The ids of one append, and what became of it.
type Answer = (Vec<u64>, Result<std::ops::Range<u64>, SpoolError>);

/// What the spool has promised.
#[derive(Debug, Default)]
pub(super) struct Model {
    next_id: u64,
    /// Appends that were answered, and entries that a reader was given: these must not change or vanish.
    held: BTreeMap<u64, u64>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

fn entry(id: u64, payload_bytes: usize) -> Entry {
    let mut payload = vec![id as u8; payload_bytes];
    // Varied bytes, so that a shifted read shows.
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte = byte.wrapping_add((index / 7) as u8);
    }
    Entry {
        meta: Bytes::copy_from_slice(&id.to_le_bytes()),
        payload: payload.into(),
    }
}

fn id_of(stored: &Stored) -> u64 {
    u64::from_le_bytes(stored.meta[..].try_into().unwrap())
}

impl Model {
    /// Appends entries of these payload sizes, if the spool takes them.
    pub(super) fn append(&mut self, process: &Process, payload_bytes: &[usize]) -> Result<(), Refused> {
        let ids: Vec<u64> = (self.next_id..).take(payload_bytes.len()).collect();
        self.next_id += payload_bytes.len() as u64;
        let entries = ids
            .iter()
            .zip(payload_bytes)
            .map(|(id, bytes)| entry(*id, *bytes))
            .collect();
        let answers = self.answers.clone();
        process.shared.queue.push(
            entries,
            Box::new(move |answer| lock(&answers).push((ids, answer))),
        )
    }

    /// Notes what was answered since; the sequences of one append must be as many as its entries, and new.
    pub(super) fn take_answers(&mut self) -> usize {
        let answers = std::mem::take(&mut *lock(&self.answers));
        let mut stored = 0;
        for (ids, answer) in answers {
            let Ok(sequences) = answer else { continue };
            assert_eq!(
                sequences.end - sequences.start,
                ids.len() as u64,
                "as many sequences as entries"
            );
            for (sequence, id) in sequences.zip(ids) {
                assert_eq!(
                    self.held.insert(sequence, id),
                    None,
                    "sequence {sequence} given out twice"
                );
                stored += 1;
            }
        }
        stored
    }

    /// `read` is everything from `first` to `end`. Panics where a promise is broken.
    pub(super) fn check(&mut self, read: &[Result<Stored, ReadError>], first: u64, end: u64) {
        let mut next = first;
        let mut newest_id = None;
        for read in read {
            match read {
                Ok(stored) => {
                    assert_eq!(
                        stored.sequence, next,
                        "neither a gap nor a repetition that was not reported"
                    );
                    let id = id_of(stored);
                    assert!(newest_id < Some(id), "entry {id} stored behind a later one");
                    assert_eq!(
                        stored.payload,
                        entry(id, stored.payload.len()).payload,
                        "payload of {id}"
                    );
                    let held = *self.held.entry(next).or_insert(id);
                    assert_eq!(held, id, "sequence {next} held another entry before");
                    newest_id = Some(id);
                    next += 1;
                }
                Err(ReadError::Lost { sequences, cause }) => {
                    assert_eq!(sequences.start, next, "a lost range begins where reading stopped");
                    assert_eq!(*cause, Cause::CorruptOrTorn, "nothing rots here: {sequences:?}");
                    let held = self.held.range(sequences.clone()).next();
                    assert_eq!(
                        held, None,
                        "an acknowledged or delivered entry is lost: {sequences:?}"
                    );
                    next = sequences.end;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(next, end, "all that is durable can be read");
        let beyond = self.held.range(end..).next();
        assert_eq!(beyond, None, "an acknowledged entry is behind the end");
    }
}
