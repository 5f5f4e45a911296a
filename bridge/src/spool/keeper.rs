//! The second thread: makes cursors durable and removes what they have all passed, so that the writer never waits
//! for either.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::catalog::{SPARES_MAX, Segment, Spare, segment_name, spare_name};
use super::mutex::lock;
use super::shared::Shared;

/// Runs until [`Shared::stop_keeper`]; saves the cursors a last time before it ends.
pub(super) fn run(shared: &Shared) {
    let interval = Duration::from_millis(shared.config.cursor_save_interval_ms);
    loop {
        let goes_on = shared.keeper_waits(interval);
        keep(shared);
        if !goes_on {
            break;
        }
    }
}

/// One round.
pub(super) fn keep(shared: &Shared) {
    let cursors = lock(&shared.cursors).clone();
    for cursor in &cursors {
        if let Err(error) = cursor.save(&*shared.fs, &shared.dir) {
            warn!(cursor = cursor.name, %error, "spool cursor not saved; trying again");
        }
    }
    let delivered = {
        // Held while segments are taken: a cursor that is being added begins at a segment that stays.
        let cursors = lock(&shared.cursors);
        let saved = cursors
            .iter()
            .map(|cursor| cursor.saved.load(Ordering::Acquire))
            .min();
        lock(&shared.catalog).take_delivered(saved.unwrap_or(0))
    };
    if delivered.is_empty() {
        return;
    }
    for segment in remove(shared, delivered) {
        lock(&shared.catalog).put_back(segment);
    }
    shared.queue.space();
}

/// Recycles or removes the files, oldest first; returns, newest first, the segments whose files are still there.
fn remove(shared: &Shared, segments: Vec<Segment>) -> Vec<Segment> {
    let mut spares = Vec::new();
    let mut left = Vec::new();
    let mut segments = segments.into_iter();
    for segment in segments.by_ref() {
        let waiting = lock(&shared.catalog).spares() + spares.len();
        let recycle = segment.len_bytes == shared.config.segment_max_bytes && waiting < SPARES_MAX;
        match give_up(shared, &segment, recycle) {
            Ok(spare) => spares.extend(spare),
            Err(error) => {
                warn!(segment = segment.sequences.start, %error, "delivered spool segment not removed; trying again");
                left.push(segment);
                break;
            }
        }
    }
    left.extend(segments);
    left.reverse();
    // A spare is written over: first its old name must be gone for good.
    match shared.fs.sync_dir(&shared.dir) {
        Ok(()) => {
            let mut catalog = lock(&shared.catalog);
            spares.into_iter().for_each(|spare| catalog.add_spare(spare));
        }
        Err(error) => {
            warn!(%error, "spool directory not synced; a restart may find delivered segments again")
        }
    }
    left
}

fn give_up(shared: &Shared, segment: &Segment, recycle: bool) -> io::Result<Option<Spare>> {
    let path = shared.dir.join(segment_name(segment.sequences.start));
    if !recycle {
        return match shared.fs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        };
    }
    let name = spare_name(segment.sequences.start);
    shared.fs.rename(&path, &shared.dir.join(&name))?;
    Ok(Some(Spare {
        name,
        len_bytes: segment.len_bytes,
    }))
}
