//! The table, the yardsticks and the last line.

use std::fmt;
use std::time::Duration;

use crate::crowd::{Reconnected, Silence};

/// Resident memory for an idle connection without TLS.
const MAX_KIB_EACH: f64 = 12.0;
/// No PUBACK of a steady publisher, and no CONNACK of a newcomer, comes later.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    name: &'static str,
    /// Connections.
    number: Option<usize>,
    /// All of them must be served.
    complete: bool,
    within: Option<Duration>,
    retried: Option<usize>,
    kib_each: Option<f64>,
    pubacks: Option<Spread>,
    newcomers: Option<Spread>,
}

/// How long something took each time.
#[derive(Debug, Clone, Copy)]
struct Spread {
    count: usize,
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl Spread {
    /// `took` is sorted.
    fn of(took: &[Duration]) -> Self {
        let at = |part: f64| {
            let index = (took.len() as f64 * part) as usize;
            took.get(index).or(took.last()).copied().unwrap_or_default()
        };
        Self {
            count: took.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

impl Row {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(crate) fn idle(name: &'static str, connections: usize, kib: usize) -> Self {
        Self {
            number: Some(connections),
            complete: true,
            kib_each: Some(kib as f64 / connections as f64),
            ..Self::new(name)
        }
    }

    pub(crate) fn reconnected(self, storm: &Reconnected) -> Self {
        Self {
            number: Some(storm.served),
            complete: true,
            within: Some(storm.within),
            retried: Some(storm.retried),
            ..self
        }
    }

    /// Silent connections that the gateway ended.
    pub(crate) fn ended(self, silence: &Silence) -> Self {
        Self {
            number: Some(silence.ended),
            within: Some(silence.within),
            ..self
        }
    }

    /// `took` is sorted.
    pub(crate) fn pubacks(self, took: &[Duration]) -> Self {
        Self {
            pubacks: Some(Spread::of(took)),
            ..self
        }
    }

    pub(crate) fn newcomers(self, mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self {
            newcomers: Some(Spread::of(&took)),
            ..self
        }
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    connections: usize,
    rows: Vec<Row>,
    /// Messages of the steady publishers.
    pub(crate) unacknowledged: usize,
}

impl Report {
    pub(crate) fn new(connections: usize) -> Self {
        Self {
            connections,
            rows: Vec::new(),
            unacknowledged: 0,
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Each yardstick that was missed, in words.
    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if self.kib_each() > MAX_KIB_EACH {
            missed.push(format!(
                "{:.1} KiB for an idle connection, over {MAX_KIB_EACH}",
                self.kib_each()
            ));
        }
        for row in &self.rows {
            if row.complete && row.number != Some(self.connections) {
                let number = row.number.unwrap_or_default();
                missed.push(format!("{}: {number} of {}", row.name, self.connections));
            }
            for (what, spread) in [("PUBACK", row.pubacks), ("CONNACK", row.newcomers)] {
                let Some(spread) = spread else { continue };
                if spread.count == 0 || spread.max > MAX_DELAY {
                    let (took, count) = (spread.max.as_secs_f64(), spread.count);
                    missed.push(format!("{}: a {what} took {took:.3} s, of {count}", row.name));
                }
            }
        }
        if self.unacknowledged > 0 {
            missed.push(format!(
                "{} messages were never acknowledged",
                self.unacknowledged
            ));
        }
        missed
    }

    fn kib_each(&self) -> f64 {
        let plain = self.rows.iter().find(|row| row.name == "idle");
        plain.and_then(|row| row.kib_each).unwrap_or(f64::INFINITY)
    }

    /// Over every row but the undisturbed ones', the slowest.
    fn slowest(&self, spread: impl Fn(&Row) -> Option<Spread>) -> Duration {
        let all = self.rows.iter().filter_map(spread);
        all.map(|spread| spread.max).max().unwrap_or_default()
    }
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<46}{:>8}{:>8}{:>8}{:>9}{:>12}{:>8}{:>9}{:>13}{:>9}",
            "connections",
            "number",
            "in s",
            "retries",
            "KiB each",
            "PUBACK p50",
            "p99",
            "max ms",
            "CONNACK p50",
            "max ms"
        )?;
        for row in &self.rows {
            let dash = || "-".to_owned();
            let time = |took: Option<Duration>| took.map_or_else(dash, |took| format!("{:.1}", ms(took)));
            writeln!(
                f,
                "{:<46}{:>8}{:>8}{:>8}{:>9}{:>12}{:>8}{:>9}{:>13}{:>9}",
                row.name,
                row.number.map_or_else(dash, |number| number.to_string()),
                row.within
                    .map_or_else(dash, |within| format!("{:.1}", within.as_secs_f64())),
                row.retried.map_or_else(dash, |retried| retried.to_string()),
                row.kib_each.map_or_else(dash, |kib| format!("{kib:.1}")),
                time(row.pubacks.map(|spread| spread.p50)),
                time(row.pubacks.map(|spread| spread.p99)),
                time(row.pubacks.map(|spread| spread.max)),
                time(row.newcomers.map(|spread| spread.p50)),
                time(row.newcomers.map(|spread| spread.max)),
            )?;
        }
        for missed in self.missed() {
            writeln!(f, "MISSED: {missed}")?;
        }
        let reconnected = self.rows.iter().find(|row| row.retried.is_some());
        write!(
            f,
            "connections {} kib_each {:.1} reconnected {} reconnect_s {:.1} puback_max_ms {:.1} connack_max_ms {:.1} \
             unacknowledged {}",
            self.connections,
            self.kib_each(),
            reconnected.and_then(|row| row.number).unwrap_or_default(),
            reconnected
                .and_then(|row| row.within)
                .unwrap_or_default()
                .as_secs_f64(),
            ms(self.slowest(|row| row.pubacks)),
            ms(self.slowest(|row| row.newcomers)),
            self.unacknowledged,
        )
    }
}
