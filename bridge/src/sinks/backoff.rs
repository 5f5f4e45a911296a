//! Pauses between tries, growing and spread, so that many gateways do not come back at the same moment.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(50);

/// Doubles from 50 ms up to a limit; each pause is half to all of it.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self {
            next: FIRST.min(max),
            max,
        }
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST.min(self.max);
    }

    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = self.next.saturating_mul(2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_again() {
        let max = Duration::from_secs(1);
        let mut backoff = Backoff::new(max);
        assert!(backoff.pause() <= FIRST);
        for _ in 0..20 {
            assert!(backoff.pause() <= max);
        }
        assert!(backoff.pause() >= max / 2);
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
