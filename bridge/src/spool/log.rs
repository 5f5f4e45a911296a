//! The write side: the one segment that grows, and how it is begun, written to, given up and sealed.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{error, warn};

use super::Entry;
use super::catalog::{Segment, segment_name};
use super::commit::{Commit, encoded_bytes};
use super::error::{Hold, SpoolError};
use super::filesystem::{LogFile, write_all_at};
use super::format::{FORMAT_VERSION, Progress, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::mutex::lock;
use super::shared::Shared;

/// Segments that one commit may wear out before the spool stops.
const ATTEMPTS_MAX: u32 = 3;
/// In commits: how far behind its newest progress slot a segment may be written. A slot is written along with the
/// commit that finds the last one at least one commit away, so two are reached and the third is the one being
/// written.
const REACH_COMMITS: u64 = 3;
/// A segment is sealed by age after this part of `max_age_s`, so that its age tells that of its entries.
const AGE_PARTS: u64 = 8;

const NEW_SEGMENT: &str = "segment.tmp";

/// Why a commit was not stored. None of its bytes counts in either case.
#[derive(Debug)]
pub(super) enum Fault {
    /// Try again later.
    Held(Hold),
    /// No segment could be written; the spool must stop.
    Broken(SpoolError),
}

/// Appends commits, each of them durable when [`Log::store`] returns. One thread owns it.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    active: Option<Active>,
    next_sequence: u64,
}

/// The segment that grows.
#[derive(Debug)]
struct Active {
    file: Arc<dyn LogFile>,
    path: PathBuf,
    header: SegmentHeader,
    len_bytes: u64,
    /// Everything before it is durable.
    end_offset: u64,
    /// Ordinal of the next commit.
    commit: u32,
    /// The newest slot that is durable.
    progress: Progress,
}

/// What an I/O error in a segment means for it.
enum Broke {
    /// Nothing was given to fdatasync: the same bytes may be written to the same place later.
    Before(Hold),
    /// Nothing is known of what was written.
    Segment(io::Error),
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>, next_sequence: u64) -> Self {
        Self {
            shared,
            active: None,
            next_sequence,
        }
    }

    /// How much more fits the segment that grows.
    pub(super) fn remaining_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.len_bytes.saturating_sub(active.end_offset))
    }

    /// Writes the entries in one go and syncs them once. `delivered` is the first sequence that some cursor has
    /// not passed. A segment whose write or sync fails is given up, since after a failed fdatasync the kernel calls
    /// the lost pages clean; the same entries then go to a new one.
    pub(super) fn store<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry> + Clone,
        delivered: u64,
    ) -> Result<Commit, Fault> {
        let bytes = entries.clone().map(encoded_bytes).sum();
        self.hold_by_age(delivered)?;
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(entries.clone(), bytes) {
                Err(Fault::Broken(failed)) => failed,
                stored_or_held => return stored_or_held,
            };
            self.active = None;
            self.shared.counters.failures.fetch_add(1, Ordering::Relaxed);
            error!(error = ?failed, attempt, "spool segment given up; nothing of this commit was acknowledged");
            if attempt == ATTEMPTS_MAX {
                return Err(Fault::Broken(failed));
            }
            attempt += 1;
        }
    }

    fn attempt<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry> + Clone,
        bytes: u64,
    ) -> Result<Commit, Fault> {
        if self.remaining_bytes() < bytes
            && let Some(mut full) = self.active.take()
        {
            full.seal(self.next_sequence);
        }
        let active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        let active = self.active.insert(active);
        let arena = lock(&self.shared.hot).take_arena();
        let commit = Commit::encode(
            entries,
            self.next_sequence,
            active.header.salt,
            active.commit,
            arena,
        );
        match active.write(&commit, self.shared.config.commit_max_bytes) {
            Ok(()) => {
                self.next_sequence = commit.sequences().end;
                Ok(commit)
            }
            Err(Broke::Before(hold)) => Err(Fault::Held(hold)),
            Err(Broke::Segment(source)) => {
                Err(Fault::Broken(SpoolError::io("write to", &active.path, source)))
            }
        }
    }

    /// Whether commits stand behind the newest progress slot.
    pub(super) fn is_unproven(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.end_offset > active.progress.end_offset)
    }

    /// Puts a progress slot behind the newest commit.
    pub(super) fn prove(&mut self) {
        let Some(active) = &mut self.active else { return };
        let progress = active.progress_to(self.next_sequence, false);
        match active
            .write_progress(&progress)
            .and_then(|()| active.file.sync_data())
        {
            Ok(()) => active.progress = progress,
            Err(error) => {
                warn!(path = %active.path.display(), %error, "progress slot not written; going on in a new segment");
                self.active = None;
            }
        }
    }

    /// Seals the segment that grows and gives its unused blocks back.
    pub(super) fn close(&mut self) {
        if let Some(mut active) = self.active.take() {
            active.seal(self.next_sequence);
            active.shrink();
        }
    }

    fn hold_by_age(&mut self, delivered: u64) -> Result<(), Fault> {
        let Some(max_age_ms) = self
            .shared
            .config
            .max_age_s
            .map(|max_age_s| max_age_s.saturating_mul(1000))
        else {
            return Ok(());
        };
        let now_ms = self.shared.fs.now_ms();
        let aged = |active: &mut Active| {
            active.commit > 0 && now_ms.saturating_sub(active.header.created_ms) > max_age_ms / AGE_PARTS
        };
        if let Some(mut active) = self.active.take_if(aged) {
            active.seal(self.next_sequence);
        }
        if delivered < self.next_sequence
            && let Some(created_ms) = lock(&self.shared.catalog).created_ms(delivered)
            && now_ms.saturating_sub(created_ms) > max_age_ms
        {
            return Err(Fault::Held(Hold::MaxAge));
        }
        Ok(())
    }

    /// Begins a segment at the next sequence: in a recycled file where one waits, else in a fresh one.
    fn begin(&self) -> Result<Active, Fault> {
        let spare = lock(&self.shared.catalog).take_spare();
        if let Some(spare) = spare {
            let from = self.shared.dir.join(&spare.name);
            match self.shared.fs.open(&from).and_then(|file| self.name(file, &from)) {
                Ok(active) => return Ok(active),
                Err(error) => {
                    warn!(path = %from.display(), %error, "recycled spool file not usable; taking a fresh one");
                    let _gone_or_left_for_recovery = self.shared.fs.remove(&from);
                }
            }
        }
        self.check_space()?;
        let from = self.shared.dir.join(NEW_SEGMENT);
        let begun = self.shared.fs.create(&from).and_then(|file| {
            file.allocate(self.shared.config.segment_max_bytes)?;
            self.name(file, &from)
        });
        begun.map_err(|source| {
            let _gone_or_left_for_recovery = self.shared.fs.remove(&from);
            match Hold::of(&source) {
                Some(hold) => Fault::Held(hold),
                None => Fault::Broken(SpoolError::io("begin segment", &from, source)),
            }
        })
    }

    fn check_space(&self) -> Result<(), Fault> {
        let config = &self.shared.config;
        if lock(&self.shared.catalog)
            .bytes()
            .saturating_add(config.segment_max_bytes)
            > config.max_bytes
        {
            return Err(Fault::Held(Hold::MaxBytes));
        }
        match self.shared.fs.free_bytes(&self.shared.dir) {
            Ok(free) if free.saturating_sub(config.segment_max_bytes) < config.min_free_disk_bytes => {
                Err(Fault::Held(Hold::MinFreeDisk))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                warn!(%error, "free disk space not known; min_free_disk_bytes is not kept");
                Ok(())
            }
        }
    }

    /// Writes the header, and only when it is durable gives the file the name of a segment: what has such a name
    /// has a header.
    fn name(&self, file: Arc<dyn LogFile>, from: &std::path::Path) -> io::Result<Active> {
        let shared = &self.shared;
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            salt: rand::random(),
            first_sequence: self.next_sequence,
            created_ms: shared.fs.now_ms(),
            reach_bytes: shared.config.commit_max_bytes * REACH_COMMITS,
            gateway_id: shared.gateway_id.clone(),
        };
        let progress = Progress {
            generation: 0,
            end_offset: SEGMENT_HEADER_BYTES,
            end_sequence: self.next_sequence,
            commit: 0,
            sealed: false,
            proven_sequence: self.next_sequence,
        };
        write_all_at(&*file, &mut [IoSlice::new(&header.page(&progress))], 0)?;
        file.sync_data()?;
        let path = shared.dir.join(segment_name(self.next_sequence));
        shared.fs.rename(from, &path)?;
        shared.fs.sync_dir(&shared.dir)?;
        let len_bytes = file.len_bytes()?;
        lock(&shared.catalog).push(Segment {
            sequences: self.next_sequence..self.next_sequence,
            len_bytes,
            salt: Some(header.salt),
            created_ms: header.created_ms,
            proven_sequence: u64::MAX,
        });
        Ok(Active {
            file,
            path,
            header,
            len_bytes,
            end_offset: SEGMENT_HEADER_BYTES,
            commit: 0,
            progress,
        })
    }
}

impl Active {
    fn write(&mut self, commit: &Commit, commit_max_bytes: u64) -> Result<(), Broke> {
        let written = write_all_at(&*self.file, &mut commit.slices(), self.end_offset);
        written.map_err(|error| Hold::of(&error).map_or(Broke::Segment(error), Broke::Before))?;
        // Says only what the sync before this one has made true, so it may reach the disk before the commit does.
        let behind = self.end_offset - self.progress.end_offset;
        let progress =
            (behind >= commit_max_bytes).then(|| self.progress_to(commit.sequences().start, false));
        if let Some(progress) = &progress {
            self.write_progress(progress).map_err(Broke::Segment)?;
        }
        self.file.sync_data().map_err(Broke::Segment)?;
        self.end_offset += commit.encoded_bytes();
        self.commit += 1;
        self.progress = progress.unwrap_or(self.progress);
        Ok(())
    }

    fn progress_to(&self, end_sequence: u64, sealed: bool) -> Progress {
        Progress {
            generation: self.progress.generation + 1,
            end_offset: self.end_offset,
            end_sequence,
            commit: self.commit,
            sealed,
            proven_sequence: end_sequence,
        }
    }

    fn write_progress(&self, progress: &Progress) -> io::Result<()> {
        let slot = progress.encode(self.header.salt);
        write_all_at(&*self.file, &mut [IoSlice::new(&slot)], progress.offset() as u64)
    }

    /// Saves a restart the reading. Not needed for anything else: the name of the next segment says where this
    /// one ends.
    fn seal(&mut self, end_sequence: u64) {
        let progress = self.progress_to(end_sequence, true);
        if let Err(error) = self
            .write_progress(&progress)
            .and_then(|()| self.file.sync_data())
        {
            warn!(path = %self.path.display(), %error, "spool segment not sealed; a restart will read its tail");
        }
    }

    fn shrink(&self) {
        if let Err(error) = self
            .file
            .set_len(self.end_offset)
            .and_then(|()| self.file.sync_data())
        {
            warn!(path = %self.path.display(), %error, "unused space of a spool segment not given back");
        }
    }
}
