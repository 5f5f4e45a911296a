//! `shopfloor up`: everything on this machine, and a short simulated shift through it.
//!
//! Layout: [`claim`] makes sure that directory and ports are free; [`embedded`] is one process with librdkafka's in-memory Kafka; [`real`] is Kafka, HAProxy, two APIs and two
//! gateways as processes of their own; [`shift`] runs the machines and counts what arrived.

mod claim;
mod embedded;
mod real;
mod shift;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use shopfloor::parts::Postgres;
use shopfloor_bridge::kafka::Cluster;
use shopfloor_runtime::telemetry::LogConfig;
use shopfloor_runtime::{shutdown, telemetry};

use super::say;

/// The database of the private Postgres cluster.
const DATABASE: &str = "shopfloor";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Real Kafka and HAProxy, two APIs, two gateways, instead of one process.
    #[arg(long)]
    real: bool,
    /// Stop after the shift's summary; succeed only if everything acknowledged is in Kafka and in Postgres.
    #[arg(long)]
    once: bool,
    /// Units that the simulated shift produces.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=50_000))]
    messages: u64,
    /// Where servers keep their data and logs.
    #[arg(long, default_value = ".run/up")]
    dir: PathBuf,
    /// Loopback port of MQTT.
    #[arg(long, default_value_t = 1883)]
    mqtt_port: u16,
    /// Loopback port of the REST API.
    #[arg(long, default_value_t = 3002)]
    rest_port: u16,
    /// Loopback port of /live, /ready and /metrics; with --real the first of four.
    #[arg(long, default_value_t = 9600)]
    admin_port: u16,
    /// Folder of Kafka's jars, for --real; `make kafka` fills it.
    #[arg(long, default_value = ".run/kafka/lib")]
    kafka_jars: PathBuf,
    /// HAProxy's configuration, for --real.
    #[arg(long, default_value = "haproxy/haproxy.cfg")]
    haproxy_config: PathBuf,
    /// What the servers in this process log, to standard error.
    #[arg(long, default_value = "warn")]
    log: String,
}

/// What is running, as the shift and a person see it.
struct Site {
    mqtt: SocketAddr,
    rest: SocketAddr,
    admin: Vec<SocketAddr>,
    kafka: Cluster,
    postgres: Arc<Postgres>,
    servers: Servers,
}

enum Servers {
    Embedded(Box<embedded::Servers>),
    Real(Box<real::Servers>),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    telemetry::init_logs(&LogConfig {
        level: args.log.clone(),
        ..LogConfig::default()
    });
    let stop = shutdown::on_signal()?;
    let _only = claim::dir(&args.dir)?;
    claim::check_ports(&args)?;
    let starting = async {
        if args.real {
            real::start(&args).await
        } else {
            embedded::start(&args).await
        }
    };
    let site = tokio::select! {
        biased;
        () = stop.cancelled() => {
            say("stopped before everything had started; nothing is lost");
            return Ok(ExitCode::FAILURE);
        }
        site = starting => site?,
    };
    site.introduce(args.real);
    let counted = shift::run(&site, args.messages, stop.clone()).await;
    if counted.is_ok() && !args.once {
        say("\nEverything stays up until Ctrl-C.");
        stop.cancelled().await;
    }
    let stopped = site.stop().await;
    let equal = counted?;
    stopped?;
    Ok(if equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Site {
    fn introduce(&self, real: bool) {
        let admin: Vec<_> = self
            .admin
            .iter()
            .map(|address| format!("http://{address}/metrics"))
            .collect();
        let kafka = self.kafka.bootstrap_servers();
        let kind = if real {
            "Apache Kafka"
        } else {
            "in-process, for a first look: 5 MiB a partition, gone at the end; clients need api_version=(2,0)"
        };
        say(format_args!(
            "MQTT    {}   (anonymous clients are let in: loopback only)\nREST    http://{}/api/v1/production   (what it offers, to read and to try)\nKafka   {kafka}   \
             ({kind})\nadmin   {}\n",
            self.mqtt,
            self.rest,
            admin.join("  "),
        ));
    }

    /// Stops in the order of the data and loses nothing: what Kafka or the API did not take is in the spool.
    async fn stop(self) -> Result<()> {
        match self.servers {
            Servers::Embedded(servers) => servers.stop().await?,
            Servers::Real(servers) => servers.stop().await?,
        }
        if let Some(postgres) = Arc::into_inner(self.postgres) {
            blocking("stop Postgres", move || postgres.stop()).await?;
        }
        Ok(())
    }
}

fn loopback(port: u16) -> SocketAddr {
    (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()
}

/// Runs what blocks (starting and stopping servers) beside the async tasks.
async fn blocking<T, E>(what: &'static str, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .with_context(|| format!("{what}: crashed"))?
        .with_context(|| format!("cannot {what}"))
}

async fn start_postgres(args: &Args) -> Result<Arc<Postgres>> {
    let dir = args.dir.join("postgres");
    let postgres = blocking("start Postgres", move || {
        let postgres = Postgres::start(&dir)?;
        postgres.create_database(DATABASE)?;
        Ok::<_, shopfloor::parts::PartError>(postgres)
    });
    Ok(Arc::new(postgres.await?))
}
