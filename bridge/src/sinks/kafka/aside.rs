//! What Kafka has refused in transactions that had to be undone for it: known when they are done again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What becomes of a record that Kafka refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes to the dead-letter topic, for this reason.
    DeadLetter(String),
    /// That topic refused it too: it goes to disk.
    Disk(String),
    /// It is on disk.
    Kept,
}

/// Refused records by their sequences.
#[derive(Debug, Default)]
pub(super) struct Aside {
    fates: BTreeMap<u64, Fate>,
    /// Their batch was refused. Each goes in a transaction of its own, so that only the one at fault is set aside.
    suspects: BTreeSet<u64>,
}

impl Aside {
    pub(super) fn is_empty(&self) -> bool {
        self.fates.is_empty()
    }

    pub(super) fn fate(&self, sequence: u64) -> Option<&Fate> {
        self.fates.get(&sequence)
    }

    pub(super) fn decide(&mut self, sequence: u64, fate: Fate) {
        self.suspects.remove(&sequence);
        self.fates.insert(sequence, fate);
    }

    /// Kafka refused it as what it was sent as.
    pub(super) fn refuse(&mut self, sequence: u64, reason: String) {
        let fate = match self.fate(sequence) {
            None => Fate::DeadLetter(reason),
            Some(_) => Fate::Disk(reason),
        };
        self.decide(sequence, fate);
    }

    pub(super) fn suspect(&mut self, sequences: Range<u64>) {
        self.suspects.extend(sequences);
    }

    pub(super) fn is_suspect(&self, sequence: u64) -> bool {
        self.suspects.contains(&sequence)
    }

    /// How many records from `sequence` on, itself no suspect, may share a transaction.
    pub(super) fn before_next_suspect(&self, sequence: u64) -> usize {
        let next = self.suspects.range(sequence..).next();
        next.map_or(usize::MAX, |next| {
            usize::try_from(next - sequence).unwrap_or(usize::MAX)
        })
    }

    /// Everything before `position` is done.
    pub(super) fn forget_before(&mut self, position: u64) {
        self.fates = self.fates.split_off(&position);
        self.suspects = self.suspects.split_off(&position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_record_is_a_dead_letter_first_and_goes_to_disk_when_that_is_refused_too() {
        let mut aside = Aside::default();
        aside.suspect(5..8);
        assert_eq!(aside.before_next_suspect(2), 3);
        assert!(aside.is_suspect(6));
        aside.refuse(6, "too large".into());
        assert_eq!(aside.fate(6), Some(&Fate::DeadLetter("too large".into())));
        assert!(!aside.is_suspect(6), "its fate is known");
        aside.refuse(6, "still".into());
        assert_eq!(aside.fate(6), Some(&Fate::Disk("still".into())));
        aside.forget_before(7);
        assert!(aside.is_empty() && aside.is_suspect(7));
        aside.forget_before(8);
        assert_eq!(aside.before_next_suspect(8), usize::MAX);
    }
}
