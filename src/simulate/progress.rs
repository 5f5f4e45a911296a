//! How far the simulation is, on standard error.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::stats::{Counts, Stats};

/// Where and how progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    #[default]
    Silent,
    /// One line, written over again: for a terminal.
    Rewritten,
    /// A line every few seconds: for a log.
    Lines,
}

impl Progress {
    fn interval(self) -> Option<Duration> {
        match self {
            Self::Silent => None,
            Self::Rewritten => Some(Duration::from_millis(250)),
            Self::Lines => Some(Duration::from_secs(5)),
        }
    }
}

/// Shows progress until `done`.
pub(super) async fn show(progress: Progress, stats: Arc<Stats>, started: Instant, done: CancellationToken) {
    let Some(interval) = progress.interval() else {
        return;
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.tick().await;
    let mut before = Counts::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = done.cancelled() => break,
        }
        let counts = stats.counts();
        let trouble = stats
            .last_trouble()
            .filter(|_| counts.connected < u64::from(stats.machines));
        let text = line(&stats, counts, before, interval, started.elapsed(), trouble);
        before = counts;
        write(progress, &text);
    }
    if progress == Progress::Rewritten {
        write(progress, "");
    }
}

fn write(progress: Progress, text: &str) {
    let mut err = std::io::stderr().lock();
    // A closed standard error is no reason to stop publishing.
    let _ = match progress {
        Progress::Rewritten => write!(err, "\r\x1b[2K{text}"),
        _ => writeln!(err, "{text}"),
    };
    let _ = err.flush();
}

fn line(
    stats: &Stats,
    counts: Counts,
    before: Counts,
    interval: Duration,
    elapsed: Duration,
    trouble: Option<String>,
) -> String {
    let rate = (counts.published - before.published) as f64 / interval.as_secs_f64();
    let mut line = format!(
        "{}/{} machines connected, published {}, acknowledged {}, {rate:.0} messages/s, {} s",
        counts.connected,
        stats.machines,
        counts.published,
        counts.acknowledged,
        elapsed.as_secs(),
    );
    if counts.invalid > 0 {
        line.push_str(&format!(", {} invalid", counts.invalid));
    }
    if let Some(trouble) = trouble {
        let short: String = trouble.chars().take(80).collect();
        line.push_str(&format!(" ({short})"));
    }
    line
}
