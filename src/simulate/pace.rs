//! When a message is due: simulated time at a speed, then the rate limit that all machines share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::args::{Config, Speed};
use super::payload::Message;
use super::plan::Line;

/// Unused room under the rate limit that may be made up for; covers the timer's grain of a millisecond.
const RATE_CREDIT: Duration = Duration::from_millis(50);
/// Due later than any run lasts.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// One slot after the other, evenly in time, for all machines together.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    next: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new(rate_per_s: u32) -> Self {
        let interval = Duration::from_secs(1) / rate_per_s.max(1);
        Self {
            interval,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Takes the next slot; it may lie in the past by the credit.
    fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = next.max(now.checked_sub(RATE_CREDIT).unwrap_or(now));
        *next = slot + self.interval;
        slot
    }
}

/// One machine's messages, each with the time at which it may go out.
#[derive(Debug)]
pub(super) struct Source {
    line: Line,
    speed: Speed,
    started: Instant,
    /// No message goes out after it.
    ends: Option<Instant>,
    rate: Option<Arc<RateLimit>>,
    head: Option<Head>,
}

#[derive(Debug)]
struct Head {
    message: Message,
    due: Instant,
    has_slot: bool,
}

/// The state of a machine's next message.
#[derive(Debug)]
pub(super) enum Next {
    Due(Message),
    At(Instant),
    /// Nothing will follow.
    End,
}

impl Source {
    pub(super) fn new(config: &Config, line: Line, started: Instant, rate: Option<Arc<RateLimit>>) -> Self {
        let ends = config.duration.map(|duration| started + duration);
        Self {
            line,
            speed: config.speed,
            started,
            ends,
            rate,
            head: None,
        }
    }

    /// Takes the next message when it is due at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.is_exhausted(now) {
            return Next::End;
        }
        let Some(mut head) = self.head.take() else {
            return Next::End;
        };
        if head.due <= now && !head.has_slot {
            head.has_slot = true;
            head.due = self.rate.as_ref().map_or(head.due, |rate| rate.reserve(now));
        }
        if head.due <= now {
            return Next::Due(head.message);
        }
        let due = head.due;
        self.head = Some(head);
        Next::At(due)
    }

    /// Whether nothing will follow.
    pub(super) fn is_exhausted(&mut self, now: Instant) -> bool {
        // At a factor the window of simulated time ends the plan, so that timing cannot change it.
        if self.speed == Speed::Max && self.ends.is_some_and(|ends| now >= ends) {
            self.finish();
        }
        if self.head.is_none() {
            self.head = self.draw();
        }
        self.head.is_none()
    }

    /// Drops what is left.
    pub(super) fn finish(&mut self) {
        self.head = None;
        self.line.end();
    }

    fn draw(&mut self) -> Option<Head> {
        let message = self.line.next()?;
        let due = match self.speed {
            Speed::Max => self.started,
            Speed::Factor(factor) => {
                let real_s = self.line.since_start(&message.unit).as_secs_f64() / factor;
                self.started + Duration::try_from_secs_f64(real_s).map_or(FAR, |real| real.min(FAR))
            }
        };
        Some(Head {
            message,
            due,
            has_slot: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::plan::Plan;

    fn source(config: &Config, rate: Option<Arc<RateLimit>>, started: Instant) -> Source {
        Source::new(
            config,
            Plan::new(config).unwrap().lines().next().unwrap(),
            started,
            rate,
        )
    }

    #[test]
    fn at_speed_60_a_message_is_due_after_a_60th_of_its_simulated_time() {
        let config = Config {
            speed: Speed::Factor(60.0),
            ..Config::default()
        };
        let started = Instant::now();
        let first = Plan::new(&config)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .next()
            .unwrap();
        let after_ms = (first.unit.time_of_production_ms - config.start_ms) as f64 / 60.0;
        let due = started + Duration::from_secs_f64(after_ms / 1000.0);
        let mut source = source(&config, None, started);
        assert!(matches!(source.next(started), Next::At(at) if at == due));
        assert!(matches!(source.next(due), Next::Due(message) if message == first));
    }

    #[test]
    fn at_speed_max_everything_is_due_until_the_duration_ends() {
        let config = Config {
            speed: Speed::Max,
            duration: Some(Duration::from_secs(5)),
            ..Config::default()
        };
        let started = Instant::now();
        let mut source = source(&config, None, started);
        for _ in 0..1_000 {
            assert!(matches!(
                source.next(started + Duration::from_secs(4)),
                Next::Due(_)
            ));
        }
        assert!(matches!(source.next(started + Duration::from_secs(5)), Next::End));
        assert!(matches!(source.next(started), Next::End));
    }

    #[test]
    fn two_machines_share_the_rate_limit() {
        let config = Config {
            speed: Speed::Max,
            ..Config::default()
        };
        let rate = Arc::new(RateLimit::new(100));
        let started = Instant::now();
        let mut sources = [
            source(&config, Some(rate.clone()), started),
            source(&config, Some(rate), started),
        ];
        let mut sent = 0;
        for ms in 0..1_000 {
            let now = started + Duration::from_millis(ms);
            for source in &mut sources {
                while let Next::Due(_) = source.next(now) {
                    sent += 1;
                }
            }
        }
        // 100 a second, and what the credit of 50 ms allows at the start.
        assert!((99..=106).contains(&sent), "{sent} messages in a second");
    }
}
