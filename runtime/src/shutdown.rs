//! Signals to a cancellation token, and the drain under a deadline.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A token that SIGINT or SIGTERM cancels; a second signal ends the process at once with code 130.
pub fn on_signal() -> io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! { _ = interrupt.recv() => "SIGINT", _ = terminate.recv() => "SIGTERM" };
        tracing::info!(signal = name, "draining; a second signal stops at once");
        cancelled.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(130);
    });
    Ok(token)
}

/// Waits until every task of `tasks` has ended, at most `deadline`. False where some had not.
pub async fn drain(tasks: &TaskTracker, deadline: Duration) -> bool {
    tasks.close();
    let drained = tokio::time::timeout(deadline, tasks.wait()).await.is_ok();
    if !drained {
        tracing::warn!(left = tasks.len(), ?deadline, "stopped with tasks still running");
    }
    drained
}
