//! The spool's files of a dead gateway: read apart from the product, and damaged.
//!
//! The format is written down in `bridge/src/spool/mod.rs`.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

use crate::unit::{Name, Unit};

const FIRST_RECORD_AT: usize = 4096;
const SALT_AT: Range<usize> = 12..16;
const RECORD_HEADER_BYTES: usize = 24;
/// Longest torn end that is left behind.
const TORN_MAX_BYTES: usize = 3_000;
/// Records at the end that count as the tail.
const TAIL_RECORDS: usize = 20;

/// One file, `segment-{first sequence}`.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Behind the last record.
    end: usize,
}

#[derive(Debug, Clone)]
struct Record {
    sequence: u64,
    at: Range<usize>,
    /// `None` of what is no unit.
    unit: Option<Name>,
}

/// A record of which a byte was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged {
    pub sequence: u64,
    pub unit: Name,
}

/// Every segment below `dir`, the oldest first.
pub fn read(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(first) = first_sequence(&path) {
                segments.push((first, Segment::read(path, first)?));
            }
        }
    }
    segments.sort_by_key(|(first, _)| *first);
    Ok(segments.into_iter().map(|(_, segment)| segment).collect())
}

/// Leaves what a write that was cut short leaves behind the last record: the start of a record that nobody was told to
/// be safe.
pub fn tear(segments: &[Segment], rng: &mut StdRng) -> io::Result<()> {
    let Some(newest) = segments.last() else {
        return Ok(());
    };
    let torn = match newest.records.last() {
        Some(last) => {
            let mut next = newest.bytes[last.at.clone()].to_vec();
            next[16..24].copy_from_slice(&(last.sequence + 1).to_le_bytes());
            next.truncate(rng.random_range(1..next.len()));
            next
        }
        None => (0..rng.random_range(1..TORN_MAX_BYTES))
            .map(|_| rng.random())
            .collect(),
    };
    File::options()
        .write(true)
        .open(&newest.path)?
        .write_all_at(&torn, newest.end as u64)
}

/// Changes one bit anywhere: in a record, delivered or not, in a header, in a progress slot.
pub fn flip_anywhere(segments: &[Segment], rng: &mut StdRng) -> io::Result<Option<Damaged>> {
    let all: usize = segments.iter().map(|segment| segment.end).sum();
    if all == 0 {
        return Ok(None);
    }
    let mut at = rng.random_range(0..all);
    for segment in segments {
        if at < segment.end {
            return segment.flip(at, rng);
        }
        at -= segment.end;
    }
    Ok(None)
}

/// Changes one bit in one of the newest records, but not in the very last one: damaged, that one cannot be told from a
/// write that the crash cut short.
pub fn flip_in_tail(segments: &[Segment], rng: &mut StdRng) -> io::Result<Option<Damaged>> {
    let newest = segments.iter().rev().find(|segment| segment.records.len() > 1);
    let Some(newest) = newest else { return Ok(None) };
    let last = newest.records.len() - 1;
    let chosen = &newest.records[rng.random_range(last.saturating_sub(TAIL_RECORDS)..last)];
    newest.flip(rng.random_range(chosen.at.clone()), rng)
}

impl Segment {
    fn read(path: PathBuf, first_sequence: u64) -> io::Result<Self> {
        let bytes = fs::read(&path)?;
        let mut segment = Self {
            path,
            bytes,
            records: Vec::new(),
            end: FIRST_RECORD_AT,
        };
        let mut expected = first_sequence;
        while let Some(record) = segment.record_at(segment.end, expected) {
            segment.end = record.at.end;
            segment.records.push(record);
            expected += 1;
        }
        Ok(segment)
    }

    fn record_at(&self, at: usize, expected: u64) -> Option<Record> {
        let header = self.bytes.get(at..at + RECORD_HEADER_BYTES)?;
        let (payload_bytes, meta_bytes) = (number(header, 4..8)?, number(header, 8..12)?);
        let sequence = u64::from_le_bytes(header.get(16..24)?.try_into().ok()?);
        let payload_at = at + RECORD_HEADER_BYTES + meta_bytes as usize;
        let at = at..payload_at + payload_bytes as usize;
        let checked = self.bytes.get(at.start + 4..at.end)?;
        let crc = crc32c::crc32c_append(number(&self.bytes, SALT_AT)?, checked);
        if sequence != expected || number(header, 0..4)? != crc {
            return None;
        }
        let unit = Unit::of_json(self.bytes.get(payload_at..at.end)?);
        Some(Record {
            sequence,
            at,
            unit: unit.map(|unit| unit.name),
        })
    }

    fn flip(&self, at: usize, rng: &mut StdRng) -> io::Result<Option<Damaged>> {
        let flipped = self.bytes[at] ^ (1 << rng.random_range(0..8));
        File::options()
            .write(true)
            .open(&self.path)?
            .write_all_at(&[flipped], at as u64)?;
        let record = self.records.iter().find(|record| record.at.contains(&at));
        Ok(record.and_then(|record| {
            let sequence = record.sequence;
            record.unit.map(|unit| Damaged { sequence, unit })
        }))
    }
}

fn number(bytes: &[u8], field: Range<usize>) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(field)?.try_into().ok()?))
}

fn first_sequence(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("segment-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SALT: u32 = 77;

    /// A segment of units with the orders 1 and up, from the sequence 40 on, and zeroes behind.
    fn written(dir: &Path, units: i32) -> Vec<Segment> {
        let mut bytes = vec![0; FIRST_RECORD_AT];
        bytes[SALT_AT].copy_from_slice(&SALT.to_le_bytes());
        for (sequence, order) in (40_u64..).zip(1..=units) {
            let payload = format!(
                r#"{{"timeOfProduction":"2011-02-03T00:00:00.000Z","order":{order},"machineId":7,"partId":4}}"#
            );
            let meta = b"meta";
            let lens = [payload.len() as u32, meta.len() as u32, 3].map(u32::to_le_bytes);
            let checked = [
                &lens.concat(),
                &sequence.to_le_bytes()[..],
                meta,
                payload.as_bytes(),
            ]
            .concat();
            bytes.extend(crc32c::crc32c_append(SALT, &checked).to_le_bytes());
            bytes.extend(checked);
        }
        bytes.resize(bytes.len() + 10_000, 0);
        let folder = dir.join("spool");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("segment-{:020}", 40)), bytes).unwrap();
        read(dir).unwrap()
    }

    #[test]
    fn every_record_is_found_with_its_sequence_and_unit() {
        let dir = tempfile::tempdir().unwrap();
        let segments = written(dir.path(), 3);
        let found: Vec<_> = segments[0]
            .records
            .iter()
            .map(|record| (record.sequence, record.unit.unwrap().order))
            .collect();
        assert_eq!(found, [(40, 1), (41, 2), (42, 3)]);
    }

    #[test]
    fn a_torn_end_leaves_every_record_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let before = written(dir.path(), 3);
        tear(&before, &mut StdRng::seed_from_u64(1)).unwrap();
        let after = read(dir.path()).unwrap();
        let end = before[0].end;
        assert_eq!(before[0].bytes[..end], after[0].bytes[..end]);
        assert_ne!(before[0].bytes, after[0].bytes);
        assert_eq!(after[0].records.len(), 3, "half a record is none");
    }

    #[test]
    fn a_flip_changes_one_bit_and_says_whose() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..50 {
            let before = written(dir.path(), 3);
            let damaged = flip_in_tail(&before, &mut rng).unwrap().unwrap();
            let after = fs::read(&before[0].path).unwrap();
            let changed: Vec<_> = (0..after.len())
                .filter(|at| after[*at] != before[0].bytes[*at])
                .collect();
            assert_eq!(changed.len(), 1);
            let record = before[0]
                .records
                .iter()
                .find(|record| record.at.contains(&changed[0]))
                .unwrap();
            assert_eq!(
                (damaged.sequence, Some(damaged.unit)),
                (record.sequence, record.unit)
            );
            assert_ne!(record.sequence, 42, "the very last one is left alone");
        }
    }
}
