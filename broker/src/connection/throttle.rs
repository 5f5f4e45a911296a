//! How fast one client may send: over it, its socket is left unread until the time has passed. Nothing is lost.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::BrokerConfig;
use crate::metrics;

/// What a client may still send; one second's worth may come at once.
#[derive(Debug)]
pub(crate) struct Throttle {
    packets: Budget,
    bytes: Budget,
}

#[derive(Debug)]
struct Budget {
    /// 0 is no limit.
    per_s: f64,
    left: f64,
    last: Instant,
}

impl Throttle {
    pub(crate) fn new(config: &BrokerConfig, now: Instant) -> Self {
        let budget = |per_s: u32| Budget {
            per_s: per_s.into(),
            left: per_s.into(),
            last: now,
        };
        Self {
            packets: budget(config.max_packets_per_s),
            bytes: budget(config.max_bytes_per_s),
        }
    }

    /// Counts what was read. Gives the moment until which nothing more is to be read, where it was too much.
    pub(crate) fn spend(&mut self, packets: usize, bytes: usize, now: Instant) -> Option<Instant> {
        let by_packets = self.packets.spend(packets, now);
        let by_bytes = self.bytes.spend(bytes, now);
        for (over, reason) in [(by_packets, "packets"), (by_bytes, "bytes")] {
            if over.is_some() {
                metrics::throttled(reason);
            }
        }
        by_packets.max(by_bytes)
    }
}

impl Budget {
    fn spend(&mut self, count: usize, now: Instant) -> Option<Instant> {
        if self.per_s == 0.0 {
            return None;
        }
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        self.left = (self.left + passed * self.per_s).min(self.per_s) - count as f64;
        (self.left < 0.0).then(|| now + Duration::from_secs_f64(-self.left / self.per_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_a_second_s_worth_is_waited_for_and_no_longer() {
        let start = Instant::now();
        let config = BrokerConfig {
            max_packets_per_s: 100,
            max_bytes_per_s: 0,
            ..BrokerConfig::default()
        };
        let mut throttle = Throttle::new(&config, start);
        assert_eq!(throttle.spend(100, 1_000_000, start), None);
        let until = throttle.spend(50, 0, start).unwrap();
        assert_eq!(until, start + Duration::from_millis(500));
        assert_eq!(throttle.spend(0, 0, until), None);
        assert!(
            throttle.spend(1, 0, until).is_some(),
            "the budget was just used up"
        );
        let later = until + Duration::from_secs(60);
        assert_eq!(throttle.spend(100, 0, later), None);
        assert!(
            throttle.spend(1, 0, later).is_some(),
            "idleness saves up one second's worth"
        );
    }
}
