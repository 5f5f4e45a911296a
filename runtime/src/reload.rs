//! Files that are read again when they change, and on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Something that stands in files.
pub trait Reload: Send + Sync + 'static {
    /// Label of the metric.
    fn what(&self) -> &'static str;

    fn files(&self) -> Vec<PathBuf>;

    /// Reads all of them and puts them in force together; on an error what was in force stays. May block.
    fn reload(&self) -> Result<(), String>;
}

/// What of a file changes when it is written, replaced or linked elsewhere.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Reloads `part` until `stop`, the first time at once: its files may have changed since they were read.
pub async fn watch<R: Reload>(part: Arc<R>, stop: CancellationToken) {
    let mut hangup = hangup();
    let mut seen = look(&part).await;
    if !seen.is_empty() {
        reload(&part, "read").await;
    }
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            () = next(&mut hangup) => true,
            () = tokio::time::sleep(LOOK_INTERVAL) => false,
        };
        // Looked at before they are read: a change in between is seen the next time.
        let now = look(&part).await;
        if asked || now != seen {
            seen = now;
            reload(&part, "read again").await;
        }
    }
}

async fn reload<R: Reload>(part: &Arc<R>, done: &str) {
    let reading = Arc::clone(part);
    let outcome = tokio::task::spawn_blocking(move || reading.reload()).await;
    let outcome = outcome.unwrap_or_else(|crash| Err(crash.to_string()));
    let what = part.what();
    metrics::reloaded(what, outcome.is_ok());
    match outcome {
        Ok(()) => tracing::info!(what, "{done}"),
        Err(error) => tracing::error!(what, "not taken, the old one stays in force: {error}"),
    }
}

async fn look<R: Reload>(part: &Arc<R>) -> Vec<Option<Look>> {
    let files = part.files();
    let looking = tokio::task::spawn_blocking(move || {
        let look = |file: PathBuf| {
            let metadata = std::fs::metadata(file).ok()?;
            Some(Look {
                modified: metadata.modified().ok(),
                bytes: metadata.len(),
            })
        };
        files.into_iter().map(look).collect()
    });
    looking.await.unwrap_or_default()
}

fn hangup() -> Option<Signal> {
    signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP reloads nothing; changed files are still seen"))
        .ok()
}

async fn next(hangup: &mut Option<Signal>) {
    let came = match hangup {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    };
    if !came {
        std::future::pending().await
    }
}
