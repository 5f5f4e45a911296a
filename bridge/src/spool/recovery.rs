//! What a restart finds. Reads one page of every segment, and of the newest the few commits behind its last
//! progress slot.
//!
//! What is trusted, and why: a segment was sealed before the next one was begun, so only the newest can end in a
//! commit that was never finished; and what lies before a progress slot was durable when the slot was written.
//! Bytes that rot later are found by their checksum when they are read, not here.

use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::catalog::{Catalog, SPARES_MAX, Segment, Spare, first_sequence_of, is_spare};
use super::config::SpoolConfig;
use super::error::{Cause, SpoolError};
use super::filesystem::{Filesystem, LogFile, read_full_at, write_all_at};
use super::format::{
    FORMAT_VERSION, Found, Progress, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    record_at, resync,
};

/// What [`super::Spool::open`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    pub segments: usize,
    /// The first sequence that will be given out.
    pub next_sequence: u64,
    /// Read to find out, headers included.
    pub read_bytes: u64,
    /// A record that was cut off at the end, as a crash leaves it; never acknowledged.
    pub torn: Option<Torn>,
    /// What is known to be lost without reading everything. A reader reports these, and any that it finds itself.
    pub damaged: Vec<(Range<u64>, Cause)>,
    /// Cursors whose file could not be read: they begin again at the oldest entry.
    pub damaged_cursors: Vec<String>,
}

/// An unfinished record, which is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    pub segment: PathBuf,
    pub bytes: u64,
}

impl Recovery {
    /// Says what an operator may have to know. `dir` is the spool's.
    pub(super) fn tell(&self, dir: &Path) {
        let dir = dir.display();
        if let Some(Torn { segment, bytes }) = &self.torn {
            let segment = segment.display();
            warn!(%segment, bytes, "cut an unfinished record from the end of the spool; nobody was told that it was safe");
        }
        for (sequences, cause) in &self.damaged {
            let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
            error!(%dir, first, last, %cause, "records of the spool are lost; each sink that has not passed them will report it");
        }
        for cursor in &self.damaged_cursors {
            error!(%dir, cursor, "the file of a cursor is damaged; its sink begins again at the oldest record, and repeats records");
        }
    }
}

#[derive(Debug)]
pub(super) struct Recovered {
    pub catalog: Catalog,
    pub report: Recovery,
}

/// Reads a directory that is locked. Leaves no segment open to appends: a new one is begun, so that nothing is
/// ever written behind bytes of an earlier life.
pub(super) fn recover(
    fs: &dyn Filesystem,
    dir: &Path,
    gateway_id: &str,
    config: &SpoolConfig,
) -> Result<Recovered, SpoolError> {
    let listed = fs
        .list(dir)
        .map_err(|source| SpoolError::io("list", dir, source))?;
    let mut found = Vec::new();
    let mut spares = Vec::new();
    for file in listed {
        let usable = file.len_bytes == config.segment_max_bytes && spares.len() < SPARES_MAX;
        if let Some(first_sequence) = first_sequence_of(&file.name) {
            found.push((first_sequence, file));
        } else if is_spare(&file.name) && usable {
            spares.push(Spare {
                name: file.name,
                len_bytes: file.len_bytes,
            });
        } else if is_spare(&file.name) || file.name.ends_with(".tmp") {
            let path = dir.join(&file.name);
            fs.remove(&path)
                .map_err(|source| SpoolError::io("remove", &path, source))?;
        }
    }
    // A name that is seen may not be durable yet, and what follows relies on it.
    fs.sync_dir(dir)
        .map_err(|source| SpoolError::io("sync", dir, source))?;
    found.sort_by_key(|(first_sequence, _)| *first_sequence);

    let mut reading = Reading {
        fs,
        gateway_id,
        report: Recovery {
            segments: found.len(),
            ..Recovery::default()
        },
    };
    let ends: Vec<Option<u64>> = found
        .iter()
        .skip(1)
        .map(|(next, _)| Some(*next))
        .chain([None])
        .collect();
    let mut segments = std::collections::VecDeque::new();
    for ((first_sequence, file), next_first) in found.into_iter().zip(ends) {
        let segment = reading.segment(dir.join(&file.name), first_sequence, file.len_bytes, next_first)?;
        if let Some(next_first) = next_first.filter(|next_first| *next_first > segment.sequences.end) {
            reading
                .report
                .damaged
                .push((segment.sequences.end..next_first, Cause::Removed));
        }
        segments.push_back(segment);
    }
    let mut report = reading.report;
    report.next_sequence = segments.back().map_or(1, |newest| newest.sequences.end);
    Ok(Recovered {
        catalog: Catalog::new(segments, spares),
        report,
    })
}

struct Reading<'a> {
    fs: &'a dyn Filesystem,
    gateway_id: &'a str,
    report: Recovery,
}

/// What the tail of a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// From its start to the end of the last record.
    bytes: Vec<u8>,
    pub end_offset: u64,
    pub end_sequence: u64,
    /// Ordinal of a commit that could follow.
    commit: u32,
    torn_bytes: u64,
    /// Where the first hole begins that may never have been acknowledged.
    pub proven_sequence: u64,
    pub damaged: Vec<(Range<u64>, Cause)>,
}

impl Reading<'_> {
    /// `next_first` is the first sequence of the segment that follows; the newest has none.
    fn segment(
        &mut self,
        path: PathBuf,
        first_sequence: u64,
        len_bytes: u64,
        next_first: Option<u64>,
    ) -> Result<Segment, SpoolError> {
        let failed = |operation| {
            let path = path.clone();
            move |source| SpoolError::io(operation, &path, source)
        };
        let file = self.fs.open(&path).map_err(failed("open"))?;
        let page = self
            .read(&*file, 0, SEGMENT_HEADER_BYTES)
            .map_err(failed("read"))?;
        let header = SegmentHeader::parse(&page).filter(|header| header.first_sequence == first_sequence);
        let Some(header) = header else {
            let segment = unreadable(first_sequence, len_bytes, next_first);
            self.report
                .damaged
                .push((segment.sequences.clone(), Cause::Corrupt));
            return Ok(segment);
        };
        self.check(&path, &header)?;
        let mut segment = Segment {
            sequences: first_sequence..first_sequence,
            len_bytes,
            salt: Some(header.salt),
            created_ms: header.created_ms,
            proven_sequence: u64::MAX,
        };
        let progress = Progress::parse(&page, header.salt);
        let sealed = progress.filter(|progress| progress.sealed);
        if let Some(sealed) = sealed {
            segment.sequences.end = sealed.end_sequence.min(next_first.unwrap_or(u64::MAX));
            segment.proven_sequence = sealed.proven_sequence;
        } else if let Some(next_first) = next_first {
            // Where a commit failed and went to the next segment, what stands of it here does not count.
            segment.sequences.end = next_first;
        } else {
            let tail = self
                .tail(&*file, &header, len_bytes, progress)
                .map_err(failed("read"))?;
            segment.len_bytes = seal(&*file, &header, progress, &tail).map_err(failed("seal"))?;
            segment.sequences.end = tail.end_sequence;
            segment.proven_sequence = tail.proven_sequence;
            self.report.damaged.extend(tail.damaged);
            self.report.torn = (tail.torn_bytes > 0).then(|| Torn {
                segment: path.clone(),
                bytes: tail.torn_bytes,
            });
        }
        segment.sequences.end = segment.sequences.end.max(first_sequence);
        Ok(segment)
    }

    fn check(&self, path: &Path, header: &SegmentHeader) -> Result<(), SpoolError> {
        if header.version != FORMAT_VERSION {
            let (found, known) = (header.version, FORMAT_VERSION);
            return Err(SpoolError::Version {
                segment: path.to_owned(),
                found,
                known,
            });
        }
        if header.gateway_id != self.gateway_id {
            return Err(SpoolError::OtherGateway {
                segment: path.to_owned(),
                found: header.gateway_id.clone(),
                expected: self.gateway_id.to_owned(),
            });
        }
        Ok(())
    }

    fn tail(
        &mut self,
        file: &dyn LogFile,
        header: &SegmentHeader,
        len_bytes: u64,
        progress: Option<Progress>,
    ) -> std::io::Result<Tail> {
        let bounds = SEGMENT_HEADER_BYTES..=len_bytes;
        let progress = progress.filter(|progress| bounds.contains(&progress.end_offset));
        // Without a slot the whole segment is read.
        let (offset, sequence, commit, until) = match progress {
            Some(progress) => {
                let until = progress
                    .end_offset
                    .saturating_add(header.reach_bytes)
                    .min(len_bytes);
                (progress.end_offset, progress.end_sequence, progress.commit, until)
            }
            None => (SEGMENT_HEADER_BYTES, header.first_sequence, 0, len_bytes),
        };
        let bytes = self.read(file, offset, until.saturating_sub(offset))?;
        Ok(scan_tail(bytes, header.salt, offset, sequence, commit))
    }

    fn read(&mut self, file: &dyn LogFile, offset: u64, bytes: u64) -> std::io::Result<Vec<u8>> {
        let mut read = vec![0; usize::try_from(bytes).unwrap_or_default()];
        let filled = read_full_at(file, &mut read, offset)?;
        read.truncate(filled);
        self.report.read_bytes += filled as u64;
        Ok(read)
    }
}

/// Both copies of the header are gone, and with them the salt: nothing in it can be told from garbage.
fn unreadable(first_sequence: u64, len_bytes: u64, next_first: Option<u64>) -> Segment {
    // No sequence is given out twice, so as many are skipped as could have stood there.
    let most = first_sequence.saturating_add(len_bytes / RECORD_HEADER_BYTES);
    let sequences = first_sequence..next_first.unwrap_or(most);
    Segment {
        sequences,
        len_bytes,
        salt: None,
        created_ms: 0,
        proven_sequence: u64::MAX,
    }
}

/// Reads records from `offset` to the last one. Damage with records behind it is told apart from the torn end.
pub(super) fn scan_tail(
    mut bytes: Vec<u8>,
    salt: u32,
    offset: u64,
    mut sequence: u64,
    mut commit: u32,
) -> Tail {
    let mut at = 0;
    let mut newest_commit = None;
    let mut holes = Vec::new();
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match record_at(rest, salt, &(sequence..sequence + 1)) {
            Found::Record { header, bytes } => {
                at += bytes;
                sequence += 1;
                newest_commit = Some(header.commit);
            }
            Found::Short { .. } | Found::Nothing => {
                let sequences = sequence + 1..sequence + 1 + rest.len() as u64 / RECORD_HEADER_BYTES;
                let Some((found_at, header)) = resync(&bytes, at + 1, salt, &sequences) else {
                    break;
                };
                holes.push((sequence..header.sequence, header.commit));
                at = found_at;
                sequence = header.sequence;
            }
        }
    }
    commit = newest_commit.map_or(commit, |newest| newest + 1);
    // A commit is begun only when the one before it is durable: a hole before the newest commit was acknowledged.
    let cause = |behind| {
        if newest_commit > Some(behind) {
            Cause::Corrupt
        } else {
            Cause::CorruptOrTorn
        }
    };
    let damaged: Vec<(Range<u64>, Cause)> = holes
        .into_iter()
        .map(|(sequences, behind)| (sequences, cause(behind)))
        .collect();
    let doubtful = damaged.iter().find(|(_, cause)| *cause == Cause::CorruptOrTorn);
    let proven_sequence = doubtful.map_or(sequence, |(sequences, _)| sequences.start);
    let rest = bytes.get(at..).unwrap_or_default();
    let torn = RecordHeader::parse(rest).filter(|header| header.sequence == sequence);
    let torn_bytes = torn.map_or(0, |header| header.record_bytes().min(rest.len() as u64));
    bytes.truncate(at);
    Tail {
        bytes,
        end_offset: offset + at as u64,
        end_sequence: sequence,
        commit,
        torn_bytes,
        proven_sequence,
        damaged,
    }
}

/// Makes what was found durable and final, before anybody reads it. A process that was killed leaves bytes that only
/// the page cache holds; after a failed fdatasync they even count as clean, and no sync would ever write them. So they
/// are written again. Returns the length of the file, whose unused blocks are given back.
fn seal(
    file: &dyn LogFile,
    header: &SegmentHeader,
    progress: Option<Progress>,
    tail: &Tail,
) -> std::io::Result<u64> {
    let progress = Progress {
        generation: progress.map_or(0, |progress| progress.generation) + 1,
        end_offset: tail.end_offset,
        end_sequence: tail.end_sequence,
        commit: tail.commit,
        sealed: true,
        proven_sequence: tail.proven_sequence,
    };
    let start_offset = tail.end_offset - tail.bytes.len() as u64;
    write_all_at(file, &mut [IoSlice::new(&tail.bytes)], start_offset)?;
    // The records first: a slot that outlived them would vouch for nothing.
    file.sync_data()?;
    let slot = progress.encode(header.salt);
    write_all_at(file, &mut [IoSlice::new(&slot)], progress.offset() as u64)?;
    file.set_len(tail.end_offset)?;
    file.sync_data()?;
    Ok(tail.end_offset)
}
