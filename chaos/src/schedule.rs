//! Which fault comes when: seeded, and every kind as often as every other.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::fault::Fault;

/// Rounds without end; in each, every kind comes once, in an order of its own.
#[derive(Debug)]
pub struct Schedule {
    kinds: Vec<Fault>,
    round: Vec<Fault>,
    rng: StdRng,
}

impl Schedule {
    /// `kinds` must not be empty.
    pub fn new(kinds: Vec<Fault>, seed: u64) -> Self {
        assert!(!kinds.is_empty(), "a schedule of no fault");
        Self {
            kinds,
            round: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The next fault, and the chance that its details are drawn from.
    pub fn draw(&mut self) -> (Fault, StdRng) {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.round.shuffle(&mut self.rng);
        }
        let fault = self.round.pop().expect("a round has at least one fault");
        (fault, StdRng::seed_from_u64(self.rng.random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, count: usize) -> Vec<(Fault, u64)> {
        let mut schedule = Schedule::new(Fault::all(), seed);
        (0..count)
            .map(|_| schedule.draw())
            .map(|(fault, mut rng)| (fault, rng.random()))
            .collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_faults_and_details() {
        assert_eq!(drawn(7, 60), drawn(7, 60));
        assert_ne!(drawn(7, 60), drawn(8, 60));
    }

    #[test]
    fn every_round_has_every_kind_once() {
        let kinds = Fault::all();
        for round in drawn(1, 3 * kinds.len()).chunks(kinds.len()) {
            let mut round: Vec<_> = round.iter().map(|(fault, _)| *fault).collect();
            round.sort();
            assert_eq!(round, kinds);
        }
    }
}
