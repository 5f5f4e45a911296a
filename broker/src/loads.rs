//! Averages of what is counted over 1, 5 and 15 minutes.

use std::collections::HashMap;
use std::time::Duration;

pub(crate) const PERIODS_MIN: [u32; 3] = [1, 5, 15];

/// What happened a minute, smoothed exponentially over each period, like a system's load.
#[derive(Debug)]
pub(crate) struct Loads {
    interval: Duration,
    by_name: HashMap<&'static str, Load>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    total: u64,
    averages: [f64; 3],
}

impl Loads {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            by_name: HashMap::new(),
        }
    }

    /// The averages of `name` over [`PERIODS_MIN`], now that it has come to `total`.
    pub(crate) fn update(&mut self, name: &'static str, total: u64) -> [f64; 3] {
        let load = self.by_name.entry(name).or_default();
        load.update(total, self.interval);
        load.averages
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
