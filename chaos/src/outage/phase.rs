//! The parts of a run, and latencies in each.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

const LONGEST_US: u64 = 3_600_000_000;

/// In the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections, caches, the first segments: not counted.
    WarmUp,
    Before,
    /// Kafka is away.
    During,
    /// Kafka is as good as away, and its start takes the machine's processors.
    Starting,
    /// Kafka is back and the backlog shrinks.
    Draining,
    /// The sink has caught up.
    After,
}

impl Phase {
    pub(super) const ALL: [Self; 6] = [
        Self::WarmUp,
        Self::Before,
        Self::During,
        Self::Starting,
        Self::Draining,
        Self::After,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WarmUp => "warm-up",
            Self::Before => "before",
            Self::During => "during",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::After => "after",
        })
    }
}

/// Times by phase.
#[derive(Debug)]
pub struct Latencies([Histogram<u64>; Phase::ALL.len()]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| {
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("three digits of up to an hour")
        }))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, phase: Phase, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[phase as usize].saturating_record(us.max(1));
    }

    /// `quantile` from 0 to 1; 0 of nothing.
    pub fn ms(&self, phase: Phase, quantile: f64) -> f64 {
        self.0[phase as usize].value_at_quantile(quantile) as f64 / 1000.0
    }
}
