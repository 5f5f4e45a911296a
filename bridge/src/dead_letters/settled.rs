//! Which letters are done with. A topic cannot give a single record up, so a letter that was replayed or dropped gets a
//! mark, and is not shown any more.
//!
//! The mark of a letter in the topic stands behind it in the same partition, so that retention takes the letter first,
//! whatever it is set to. The marks of letters on disk are in a file beside their spool, [`file`](Settled::file_path).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::letter::Place;

/// Groups of 64 letters with a mark that are kept in memory, about 40 bytes each.
const MAX_GROUPS: usize = 4_000_000;
/// A replay that is cut off leaves at most a few hundred.
const MAX_BEGUN: usize = 100_000;
/// Of the file, which holds ranges.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// What was done with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is being sent to Kafka; not settled yet.
    Begun,
    /// Kafka did not take it after all: it is as it was.
    Refused,
    Replayed,
    Dropped,
}

/// A replay that has begun, and of which nothing tells yet how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) record_id: Uuid,
    /// Kafka topic to which it was sent.
    pub(super) topic: String,
    pub(super) at_ms: i64,
}

impl Settlement {
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Refused => "refused",
            Self::Replayed => "replayed",
            Self::Dropped => "dropped",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Begun, Self::Refused, Self::Replayed, Self::Dropped]
            .into_iter()
            .find(|settlement| settlement.name() == name)
    }
}

/// More is settled than fits in memory.
#[derive(Debug, thiserror::Error)]
#[error(
    "more letters are settled than can be kept in memory; narrow the time with --since, or lower the topic's retention"
)]
pub struct TooMany;

/// What is settled of all that was looked at; a bit a letter.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    topic: BTreeMap<i32, Marks>,
    disk: Marks,
    groups: usize,
    begun: BTreeMap<Place, Begun>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marks {
    replayed: Bits,
    dropped: Bits,
}

/// 64 numbers a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bits(BTreeMap<u64, u64>);

impl Bits {
    fn has(&self, number: u64) -> bool {
        let group = self.0.get(&(number / 64)).copied().unwrap_or_default();
        group >> (number % 64) & 1 == 1
    }

    /// True where this began a group.
    fn set(&mut self, number: u64) -> bool {
        let group = self.0.entry(number / 64).or_default();
        let fresh = *group == 0;
        *group |= 1 << (number % 64);
        fresh
    }

    /// First and last of each run, from `from` on.
    fn ranges(&self, from: u64) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let numbers = self.0.iter().flat_map(|(group, bits)| {
            (0..64_u64)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| group * 64 + bit)
        });
        for number in numbers.filter(|number| *number >= from) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        ranges
    }
}

impl Settled {
    /// What became of the letter that lies there.
    pub fn of(&self, place: Place) -> Option<Settlement> {
        let (marks, number) = match place {
            Place::Topic { partition, offset } => (self.topic.get(&partition)?, u64::try_from(offset).ok()?),
            Place::Disk { sequence } => (&self.disk, sequence),
        };
        if marks.replayed.has(number) {
            Some(Settlement::Replayed)
        } else {
            marks.dropped.has(number).then_some(Settlement::Dropped)
        }
    }

    /// A replay has begun; the mark that ends it stands behind this one.
    pub(super) fn begin(&mut self, place: Place, begun: Begun) -> Result<(), TooMany> {
        if self.of(place).is_none() {
            self.begun.insert(place, begun);
        }
        if self.begun.len() > MAX_BEGUN {
            Err(TooMany)
        } else {
            Ok(())
        }
    }

    /// Replays that were cut off.
    pub(super) fn take_begun(&mut self) -> BTreeMap<Place, Begun> {
        std::mem::take(&mut self.begun)
    }

    pub(super) fn set(&mut self, place: Place, settlement: Settlement) -> Result<(), TooMany> {
        self.begun.remove(&place);
        let (marks, number) = match place {
            Place::Topic { partition, offset } => (
                self.topic.entry(partition).or_default(),
                u64::try_from(offset).unwrap_or_default(),
            ),
            Place::Disk { sequence } => (&mut self.disk, sequence),
        };
        let bits = match settlement {
            Settlement::Begun | Settlement::Refused => return Ok(()),
            Settlement::Replayed => &mut marks.replayed,
            Settlement::Dropped => &mut marks.dropped,
        };
        self.groups += usize::from(bits.set(number));
        if self.groups > MAX_GROUPS {
            Err(TooMany)
        } else {
            Ok(())
        }
    }

    /// Where the marks of letters on disk are.
    pub(super) fn file_path(data_dir: &Path) -> PathBuf {
        data_dir.join("dead-letters-settled.json")
    }

    /// Takes the marks of letters on disk in.
    pub(super) fn read_file(&mut self, data_dir: &Path) -> io::Result<()> {
        let path = Self::file_path(data_dir);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let ranges: Ranges = serde_json::from_slice(&fs::read(path)?)?;
        for (settlement, ranges) in [
            (Settlement::Replayed, ranges.replayed),
            (Settlement::Dropped, ranges.dropped),
        ] {
            for sequence in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                self.set(Place::Disk { sequence }, settlement)
                    .map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Makes the marks of letters on disk durable; those before `from` are not needed any more.
    pub(super) fn write_file(&self, data_dir: &Path, from: u64) -> io::Result<()> {
        let ranges = Ranges {
            replayed: self.disk.replayed.ranges(from),
            dropped: self.disk.dropped.ranges(from),
        };
        let path = Self::file_path(data_dir);
        let new = path.with_extension("json.tmp");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&ranges)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(data_dir)?.sync_all()
    }

    /// The first letter on disk at or behind `position` that is not settled.
    pub(super) fn first_open_on_disk(&self, position: u64) -> u64 {
        let mut sequence = position;
        while self.of(Place::Disk { sequence }).is_some() {
            sequence += 1;
        }
        sequence
    }
}

/// The file: first and last sequence of each run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Ranges {
    replayed: Vec<(u64, u64)>,
    dropped: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_settled_on_disk_is_settled_after_a_restart(
            numbers in prop::collection::btree_map(0_u64..300, any::<bool>(), 0..200),
            from in 0_u64..300,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut settled = Settled::default();
            for (sequence, replayed) in &numbers {
                let how = if *replayed { Settlement::Replayed } else { Settlement::Dropped };
                settled.set(Place::Disk { sequence: *sequence }, how).unwrap();
            }
            settled.write_file(dir.path(), from).unwrap();
            let mut read = Settled::default();
            read.read_file(dir.path()).unwrap();
            for sequence in 0..310 {
                let expected = numbers.get(&sequence).filter(|_| sequence >= from).map(|replayed| {
                    if *replayed { Settlement::Replayed } else { Settlement::Dropped }
                });
                prop_assert_eq!(read.of(Place::Disk { sequence }), expected);
            }
            let open = settled.first_open_on_disk(from);
            prop_assert!(!numbers.contains_key(&open) && (from..open).all(|n| numbers.contains_key(&n)));
        }
    }

    #[test]
    fn partitions_are_apart_and_without_a_file_nothing_is_settled() {
        let mut settled = Settled::default();
        settled.read_file(tempfile::tempdir().unwrap().path()).unwrap();
        let place = |partition| Place::Topic {
            partition,
            offset: 64,
        };
        settled.set(place(1), Settlement::Dropped).unwrap();
        assert_eq!(settled.of(place(1)), Some(Settlement::Dropped));
        assert_eq!(settled.of(place(0)), None);
        assert_eq!(settled.of(Place::Disk { sequence: 64 }), None);
    }
}
