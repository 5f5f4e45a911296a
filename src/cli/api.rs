//! `shopfloor api`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use shopfloor::config::{Config, Role};
use shopfloor::node::ApiNode;
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::kafka::Cluster;
use shopfloor_runtime::{shutdown, telemetry};

use super::settings::ConfigFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// postgres://user:password@host:port/database
    #[arg(long)]
    database_url: Option<String>,
    /// Address of the HTTP API.
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Kafka's host:port, comma-separated; without it records wait in the outbox.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
    /// Requests a minute and client, or off.
    #[arg(long, value_name = "N|off", allow_negative_numbers = true)]
    rate_limit: Option<RateLimit>,
    /// Address of /live, /ready and /metrics.
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
enum RateLimit {
    Off,
    Requests(u32),
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let requests = text.parse().ok().filter(|requests| *requests > 0);
        requests
            .map(Self::Requests)
            .ok_or_else(|| "it is neither a whole number from 1 nor off; write for example 50".into())
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "it is no IP address with a port; write for example 127.0.0.1:3002, or 0.0.0.0:3002 for all of this machine's \
         addresses"
            .into()
    })
}

impl Args {
    /// Arguments go over file and environment.
    fn apply(&self, config: &mut Config) {
        if let Some(url) = &self.database_url {
            config.api.database.url.clone_from(url);
        }
        if let Some(listen) = self.listen {
            config.api.listener.listen = listen;
        }
        if let Some(admin) = self.admin {
            config.admin.listen = admin;
        }
        match self.rate_limit {
            Some(RateLimit::Off) => config.api.rate_limit.enabled = false,
            Some(RateLimit::Requests(requests)) => config.api.rate_limit.requests = requests,
            None => {}
        }
    }

    /// `--kafka`, or the file's Kafka where it names a real one.
    fn kafka(&self, config: &Config) -> Option<KafkaConfig> {
        let mut kafka = config.bridge.kafka.clone();
        if let Some(bootstrap) = &self.kafka {
            kafka.bootstrap_servers.clone_from(bootstrap);
        }
        (!kafka.is_embedded()).then_some(kafka)
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let mut config = args.config.require(Role::Api)?;
    args.apply(&mut config);
    if let [problem, ..] = config.problems(Role::Api).as_slice() {
        bail!("an argument does not fit: {problem}");
    }
    telemetry::init_logs(&config.log);
    let metrics = telemetry::init_metrics().context("cannot install the metrics recorder")?;
    shopfloor_api::metrics::describe();
    let kafka = args
        .kafka(&config)
        .map(|kafka| Cluster::open(&kafka))
        .transpose()?;
    let stop = shutdown::on_signal()?;
    let api = ApiNode::start(&config, kafka.as_ref(), Some(metrics)).await?;
    let kafka = kafka
        .as_ref()
        .map_or("none: records wait in the outbox", Cluster::bootstrap_servers);
    tracing::info!(listen = %api.address, admin = %config.admin.listen, kafka, "the production API serves");
    stop.cancelled().await;
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}
