//! `shopfloor simulate`: a factory's machines as real MQTT clients, with an exact account of what was acknowledged.
//!
//! Layout, in the order in which a message passes them:
//!
//! - [`args`]: the command line, and [`Config`], what the rest works from.
//! - [`unit`]: what a machine makes.
//! - [`plan`]: which unit each machine makes when; seeded, pure.
//! - [`payload`]: a unit as topic and bytes: JSON, protobuf, or invalid on purpose.
//! - `pace`: when a message is due, by simulated time and by the rate limit.
//! - `machine`: one machine, from its first connection to its last acknowledgement.
//! - `client`: the only folder that names rumqttc.
//! - `ledger`: which message has which packet id, what is resent after a reconnect, what was settled.
//! - [`ack_log`]: a line for each acknowledged message, for an auditor.
//! - `stats`, `progress`, [`summary`]: what a person sees.
//!
//! Promise: the same seed publishes the same bytes whatever the timing; a message counts as acknowledged once, and
//! only when the broker has taken it over (PUBACK, or PUBCOMP for QoS 2).

pub mod ack_log;
pub mod args;
mod client;
mod ledger;
mod machine;
mod pace;
pub mod payload;
pub mod plan;
mod progress;
mod stats;
pub mod summary;
pub mod unit;

#[cfg(test)]
mod broker_fixture;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use args::{Config, SimulateArgs, Speed};
pub use progress::Progress;
pub use summary::Summary;

use ack_log::AckLog;
use machine::{Left, Machine};
use pace::RateLimit;
use plan::Plan;
use stats::Stats;

/// What ends a simulation without a summary.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An argument is wrong; the text names it and the remedy.
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    Factory(#[from] crate::reference::factory::FactoryError),
    #[error("acknowledgement log {path}: {action} failed")]
    AckLog {
        path: String,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// No machine ever had a connection.
    #[error(
        "no machine got a connection to {host}:{port}: {cause}; check that the gateway is up, that this is its MQTT \
         listener, and --username where it asks for one"
    )]
    Unreachable { host: String, port: u16, cause: String },
    #[error("a machine's task ended without its account")]
    Task(#[source] tokio::task::JoinError),
}

/// Drives the machines until everything is published and settled, `stop` is cancelled, or the broker stays away
/// for longer than `config.patience`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<Summary, SimulateError> {
    let plan = Plan::new(&config)?;
    let stats = Arc::new(Stats::new(config.machines));
    let (log, log_writer) = match &config.ack_log {
        Some(path) => AckLog::create(path)
            .await
            .map(|(log, writer)| (Some(log), Some(writer)))?,
        None => (None, None),
    };
    let rate = config.rate_per_s.map(|rate| Arc::new(RateLimit::new(rate)));
    let started = Instant::now();

    let mut machines = JoinSet::new();
    for line in plan.lines() {
        let machine = Machine::new(
            &config,
            line,
            started,
            rate.clone(),
            Arc::clone(&stats),
            log.clone(),
        );
        machines.spawn(machine.run(stop.clone()));
    }
    drop(log);
    let done = CancellationToken::new();
    let shown = tokio::spawn(progress::show(
        config.progress,
        Arc::clone(&stats),
        started,
        done.clone(),
    ));

    let left = settle(machines).await;
    done.cancel();
    let _ = shown.await;
    if let Some(writer) = log_writer {
        writer.finish().await?;
    }
    let left = left?;
    if let Some(cause) = left.cause.as_ref().filter(|_| !stats.ever_connected()) {
        let (host, port) = (config.host.clone(), config.port);
        return Err(SimulateError::Unreachable {
            host,
            port,
            cause: cause.clone(),
        });
    }
    Ok(Summary::new(
        &config,
        &stats,
        &left,
        started.elapsed(),
        stop.is_cancelled(),
    ))
}

async fn settle(mut machines: JoinSet<Left>) -> Result<Left, SimulateError> {
    let mut all = Left::default();
    while let Some(ended) = machines.join_next().await {
        all.add(ended.map_err(SimulateError::Task)?);
    }
    Ok(all)
}
