//! Logs and the metrics recorder.

use std::io::IsTerminal;

pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::problem::Problem;

/// What is logged, to standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Levels as in `info` or `info,shopfloor_broker=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::default(),
        }
    }
}

impl LogConfig {
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if let Err(error) = EnvFilter::try_new(&self.level) {
            out.push(Problem::new(
                format!("{at}.level"),
                format!("{:?} is no log filter: {error}", self.level),
                "write for example \"info\" or \"info,shopfloor_broker=debug\"",
            ));
        }
    }
}

/// Sends the process's logs to standard error. The second call in a process changes nothing.
pub fn init_logs(config: &LogConfig) {
    // rumqttd's router opens an error-level span for every message; what it says is in our own metrics.
    let level = format!("rumqttd=off,{}", config.level);
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for a person at a terminal, not for a file or a collector.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _already = match config.format {
        LogFormat::Text => base.finish().try_init(),
        LogFormat::Json => base.json().finish().try_init(),
    };
}

/// Installs the process's metrics recorder. Latency histograms share one set of buckets, in seconds.
pub fn init_metrics() -> Result<PrometheusHandle, BuildError> {
    const SECONDS: [f64; 14] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    let handle = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()?;
    crate::metrics::describe();
    Ok(handle)
}
