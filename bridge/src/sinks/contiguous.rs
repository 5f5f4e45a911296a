//! Which records of a sink are confirmed without a gap.

use std::collections::VecDeque;

/// Confirmations come in any order; the cursor may only follow them without a gap.
#[derive(Debug)]
pub(super) struct Contiguous {
    /// Everything before it is confirmed.
    position: u64,
    /// Whether the sequences from `position` on are confirmed.
    confirmed: VecDeque<bool>,
}

impl Contiguous {
    pub(super) fn new(position: u64) -> Self {
        Self {
            position,
            confirmed: VecDeque::new(),
        }
    }

    /// The sequence is on its way. Those between the last one and this do not exist (they were lost).
    pub(super) fn begin(&mut self, sequence: u64) {
        self.skip(sequence);
        self.confirmed.push_back(false);
    }

    /// Nothing before `sequence` is to come any more.
    pub(super) fn skip(&mut self, sequence: u64) {
        let missing = sequence.saturating_sub(self.position + self.confirmed.len() as u64);
        if self.confirmed.is_empty() {
            self.position += missing;
        } else {
            self.confirmed.extend((0..missing).map(|_| true));
        }
    }

    pub(super) fn confirm(&mut self, sequence: u64) {
        let offset = sequence
            .checked_sub(self.position)
            .and_then(|offset| usize::try_from(offset).ok());
        if let Some(slot) = offset.and_then(|offset| self.confirmed.get_mut(offset)) {
            *slot = true;
        }
        while self.confirmed.front() == Some(&true) {
            self.confirmed.pop_front();
            self.position += 1;
        }
    }

    /// Where a restart must begin.
    pub(super) fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_position_stands_before_the_first_unconfirmed_record(
            first in 1_u64..1_000,
            gaps in prop::collection::vec(1_u64..4, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
        ) {
            let sequences: Vec<u64> = gaps.iter().scan(first, |at, gap| { *at += gap; Some(*at - 1) }).collect();
            let mut contiguous = Contiguous::new(first);
            sequences.iter().for_each(|sequence| contiguous.begin(*sequence));
            let mut open: BTreeSet<u64> = sequences.iter().copied().collect();
            for index in order {
                let sequence = *index.get(&sequences);
                contiguous.confirm(sequence);
                open.remove(&sequence);
                let end = sequences[sequences.len() - 1] + 1;
                let first_open = open.first().copied().unwrap_or(end);
                prop_assert!(contiguous.position() <= first_open, "an unconfirmed record was passed");
                let stands_still =
                    sequences.iter().any(|sequence| (contiguous.position()..first_open).contains(sequence));
                prop_assert!(!stands_still, "a confirmed record was not passed");
            }
        }
    }

    #[test]
    fn a_lost_range_at_the_end_is_passed() {
        let mut contiguous = Contiguous::new(5);
        contiguous.begin(5);
        contiguous.skip(9);
        assert_eq!(contiguous.position(), 5);
        contiguous.confirm(5);
        assert_eq!(contiguous.position(), 9);
    }
}
