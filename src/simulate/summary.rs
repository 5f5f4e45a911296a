//! What a simulation came to.

use std::fmt;
use std::time::Duration;

use super::args::Config;
use super::machine::Left;
pub use super::stats::Latency;
use super::stats::Stats;

/// The account of one run. Its text ends with `published N acknowledged A`.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub machines: u16,
    pub qos: u8,
    /// Messages written to a connection, each once however often it was sent again.
    pub published: u64,
    /// Of the published ones.
    pub protobuf: u64,
    /// Of the published ones: invalid on purpose.
    pub invalid: u64,
    /// Messages that the broker took over (PUBACK, PUBCOMP), each once. An invalid one counts too: with MQTT 5 the
    /// answer that its payload is invalid is its acknowledgement. With QoS 0 there is none.
    pub acknowledged: u64,
    /// Of the acknowledged ones.
    pub acknowledged_invalid: u64,
    /// Messages that the broker answered with another error code: it does not have them.
    pub refused: u64,
    /// Published, but neither acknowledged nor refused.
    pub unacknowledged: u64,
    pub reconnects: u64,
    pub elapsed: Duration,
    pub latency: Latency,
    /// Machines that gave up before they were done, and why the first one did.
    pub gave_up: usize,
    pub gave_up_cause: Option<String>,
    /// Why the broker refused the first of the refused ones.
    pub refused_cause: Option<String>,
    /// Whether it was stopped from outside.
    pub stopped: bool,
}

impl Summary {
    pub(super) fn new(config: &Config, stats: &Stats, left: &Left, elapsed: Duration, stopped: bool) -> Self {
        let counts = stats.counts();
        let unacknowledged = match config.qos {
            0 => 0,
            _ => counts
                .published
                .saturating_sub(counts.acknowledged + counts.refused),
        };
        Self {
            machines: config.machines,
            qos: config.qos,
            published: counts.published,
            protobuf: counts.protobuf,
            invalid: counts.invalid,
            acknowledged: counts.acknowledged,
            acknowledged_invalid: counts.acknowledged_invalid,
            refused: counts.refused,
            unacknowledged,
            reconnects: left.reconnects,
            elapsed,
            latency: stats.latency(),
            gave_up: left.gave_up,
            gave_up_cause: left.cause.clone(),
            refused_cause: left.refused_cause.clone(),
            stopped,
        }
    }

    /// Valid messages that the broker acknowledged: what must be in Kafka and in Postgres.
    pub fn acknowledged_valid(&self) -> u64 {
        self.acknowledged - self.acknowledged_invalid
    }

    /// Whether every planned message went out and, from QoS 1 on, was acknowledged.
    pub fn is_complete(&self) -> bool {
        self.unacknowledged == 0 && self.refused == 0 && self.gave_up == 0
    }

    /// Acknowledged messages a second; with QoS 0 published ones.
    pub fn rate_per_s(&self) -> f64 {
        let messages = if self.qos == 0 {
            self.published
        } else {
            self.acknowledged
        };
        messages as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p99, max } = self.latency;
        let stopped = if self.stopped { ", stopped early" } else { "" };
        writeln!(
            f,
            "simulated {} machines for {:.1} s at QoS {}: {:.0} messages/s{stopped}",
            self.machines,
            self.elapsed.as_secs_f64(),
            self.qos,
            self.rate_per_s(),
        )?;
        writeln!(
            f,
            "of the published: {} protobuf, {} invalid on purpose ({} of them acknowledged)",
            self.protobuf, self.invalid, self.acknowledged_invalid
        )?;
        if self.qos == 0 {
            writeln!(f, "QoS 0 has no acknowledgements")?;
        } else {
            writeln!(
                f,
                "acknowledged after: p50 {p50:.1?}, p99 {p99:.1?}, at most {max:.1?}"
            )?;
        }
        if self.reconnects > 0 || self.unacknowledged > 0 {
            writeln!(
                f,
                "{} reconnects, {} unacknowledged",
                self.reconnects, self.unacknowledged
            )?;
        }
        if self.refused > 0 {
            let cause = self.refused_cause.as_deref().unwrap_or("no reason given");
            writeln!(f, "{} refused by the broker ({cause})", self.refused)?;
        }
        if self.gave_up > 0 {
            let cause = self.gave_up_cause.as_deref().unwrap_or("no reason known");
            writeln!(f, "{} machines gave up ({cause})", self.gave_up)?;
        }
        write!(
            f,
            "published {} acknowledged {}",
            self.published, self.acknowledged
        )
    }
}
