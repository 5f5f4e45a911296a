//! Averages of what is counted over 1, 5 and 15 minutes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::counts::Counts;

pub(crate) const PERIODS_MIN: [u32; 3] = [1, 5, 15];

/// What happened a minute, smoothed exponentially over each period, like a system's load.
#[derive(Debug)]
pub(crate) struct Loads {
    interval: Duration,
    loads: [Load; 7],
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    total: u64,
    averages: [f64; 3],
}

const LOAD_NAMES: [&str; 7] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "connections",
];

impl Loads {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            loads: [Load::default(); 7],
        }
    }

    pub(crate) fn update(&mut self, counts: &Counts) {
        let totals = [
            &counts.packets_received,
            &counts.packets_sent,
            &counts.publishes_received,
            &counts.publishes_sent,
            &counts.bytes_received,
            &counts.bytes_sent,
            &counts.connects,
        ];
        for (load, total) in self.loads.iter_mut().zip(totals) {
            load.update(total.load(Ordering::Relaxed), self.interval);
        }
    }

    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, [f64; 3])> {
        LOAD_NAMES
            .into_iter()
            .zip(self.loads.iter().map(|load| load.averages))
    }
}

impl Load {
    fn update(&mut self, total: u64, interval: Duration) {
        let minutes = interval.as_secs_f64() / 60.0;
        let a_minute = total.saturating_sub(self.total) as f64 / minutes;
        self.total = total;
        for (average, period) in self.averages.iter_mut().zip(PERIODS_MIN) {
            let kept = (-minutes / f64::from(period)).exp();
            *average = a_minute + kept * (*average - a_minute);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_becomes_the_average_and_the_short_period_first() {
        let (mut load, interval) = (Load::default(), Duration::from_secs(10));
        for tick in 1..=6 {
            load.update(tick * 100, interval);
        }
        let [one, five, fifteen] = load.averages;
        assert!(
            600.0 > one && one > five && five > fifteen && fifteen > 0.0,
            "{load:?}"
        );
        for tick in 7..=1000 {
            load.update(tick * 100, interval);
        }
        assert!(
            load.averages
                .iter()
                .all(|average| (599.0..=600.0).contains(average)),
            "{load:?}"
        );
    }
}
