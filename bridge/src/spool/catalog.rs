//! Which segments there are, in order, and which recycled files wait for their next life.

use std::collections::VecDeque;
use std::ops::Range;

use super::error::Cause;

/// A file that gave its segment up and keeps its disk blocks: writing over them needs no new metadata, which
/// makes each fdatasync about twice as fast as in a fresh file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spare {
    pub name: String,
    pub len_bytes: u64,
}

/// At most this many files wait.
pub(super) const SPARES_MAX: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub sequences: Range<u64>,
    /// Of the file.
    pub len_bytes: u64,
    /// `None` where the header cannot be read, and so nothing else.
    pub salt: Option<u32>,
    pub created_ms: u64,
    /// Sequences found damaged, where recovery read them.
    pub damaged: Vec<(Range<u64>, Cause)>,
}

/// Where a sequence is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Segment(Segment),
    /// These, the asked one first, stand nowhere.
    Lost(Range<u64>),
}

#[derive(Debug, Default)]
pub(super) struct Catalog {
    segments: VecDeque<Segment>,
    spares: Vec<Spare>,
}

/// Zero-padded, so that the order of names is that of sequences.
pub(super) fn segment_name(first_sequence: u64) -> String {
    format!("segment-{first_sequence:020}")
}

pub(super) fn first_sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:020}")
}

pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with("spare-")
}

impl Catalog {
    pub(super) fn new(segments: VecDeque<Segment>, spares: Vec<Spare>) -> Self {
        Self { segments, spares }
    }

    pub(super) fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| segment.len_bytes).sum();
        segments + self.spares.iter().map(|spare| spare.len_bytes).sum::<u64>()
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    pub(super) fn first_sequence(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.sequences.start)
    }

    /// A segment of the same name, which can only be one that never held anything, gives way.
    pub(super) fn push(&mut self, segment: Segment) {
        if self
            .segments
            .back()
            .is_some_and(|last| last.sequences.start == segment.sequences.start)
        {
            self.segments.pop_back();
        }
        self.segments.push_back(segment);
    }

    /// The newest segment now ends before `end_sequence`.
    pub(super) fn extend(&mut self, end_sequence: u64) {
        if let Some(newest) = self.segments.back_mut() {
            newest.sequences.end = end_sequence;
        }
    }

    pub(super) fn take_spare(&mut self) -> Option<Spare> {
        self.spares.pop()
    }

    pub(super) fn add_spare(&mut self, spare: Spare) {
        self.spares.push(spare);
    }

    /// Takes the oldest segments whose entries all lie before `delivered`. The newest always stays: it carries
    /// the next sequence over a restart.
    pub(super) fn take_delivered(&mut self, delivered: u64) -> Vec<Segment> {
        let mut taken = Vec::new();
        while self.segments.len() > 1
            && self
                .segments
                .front()
                .is_some_and(|oldest| oldest.sequences.end <= delivered)
        {
            taken.extend(self.segments.pop_front());
        }
        taken
    }

    /// Puts back what [`Self::take_delivered`] took and could not be removed.
    pub(super) fn put_back(&mut self, segment: Segment) {
        self.segments.push_front(segment);
    }

    /// When the segment that holds `sequence` was begun.
    pub(super) fn created_ms(&self, sequence: u64) -> Option<u64> {
        match self.locate(sequence, u64::MAX) {
            Place::Segment(segment) => Some(segment.created_ms),
            Place::Lost(_) => None,
        }
    }

    /// `end_sequence` is the first that is not durable yet.
    pub(super) fn locate(&self, sequence: u64, end_sequence: u64) -> Place {
        let index = self
            .segments
            .partition_point(|segment| segment.sequences.end <= sequence);
        match self.segments.get(index) {
            Some(segment) if segment.sequences.start <= sequence => Place::Segment(segment.clone()),
            Some(later) => Place::Lost(sequence..later.sequences.start),
            None => Place::Lost(sequence..end_sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequences: Range<u64>) -> Segment {
        Segment {
            sequences,
            len_bytes: 100,
            salt: Some(1),
            created_ms: 0,
            damaged: Vec::new(),
        }
    }

    #[test]
    fn a_hole_between_segments_is_lost_and_named() {
        let catalog = Catalog::new(
            [segment(5..10), segment(20..20), segment(20..30)].into(),
            Vec::new(),
        );
        assert_eq!(catalog.locate(1, 30), Place::Lost(1..5));
        assert_eq!(catalog.locate(9, 30), Place::Segment(segment(5..10)));
        assert_eq!(catalog.locate(10, 30), Place::Lost(10..20));
        assert_eq!(catalog.locate(20, 30), Place::Segment(segment(20..30)));
        assert_eq!(catalog.locate(30, 40), Place::Lost(30..40));
    }

    #[test]
    fn the_newest_segment_stays_even_when_it_is_delivered() {
        let mut catalog = Catalog::new([segment(1..10), segment(10..20)].into(), Vec::new());
        assert_eq!(catalog.take_delivered(9), vec![]);
        assert_eq!(catalog.take_delivered(20), vec![segment(1..10)]);
        assert_eq!(catalog.take_delivered(20), vec![]);
    }

    #[test]
    fn names_sort_as_sequences_do_and_other_files_are_none() {
        assert!(segment_name(9) < segment_name(10));
        assert_eq!(first_sequence_of(&segment_name(u64::MAX)), Some(u64::MAX));
        for other in [
            "segment-1",
            "segment-0000000000000000000x",
            "spare-00000000000000000001",
            "lock",
        ] {
            assert_eq!(first_sequence_of(other), None);
        }
    }
}
