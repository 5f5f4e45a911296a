//! Real Kafka and HAProxy; two APIs and two gateways, each a process of this binary.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use shopfloor::parts::process::{self, Process, Spec};
use shopfloor::parts::{Backend, Haproxy, HaproxyOptions, Kafka, KafkaOptions, PartError, ServerCounts};
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::kafka::Cluster;

use super::{Args, DATABASE, Site, blocking, loopback, start_postgres};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Every process, in the order in which they stop.
pub(super) struct Servers {
    gateways: Vec<Process>,
    haproxy: Haproxy,
    apis: Vec<Process>,
    kafka: Kafka,
}

pub(super) async fn start(args: &Args) -> Result<Site> {
    let postgres = start_postgres(args).await?;
    let kafka = KafkaOptions {
        dir: args.dir.join("kafka"),
        jars: args.kafka_jars.clone(),
        port: None,
        advertised_port: None,
        temporary: false,
    };
    let kafka = blocking("start Kafka", move || Kafka::start_with(kafka)).await?;
    let backends = blocking("find free ports", || {
        Ok::<_, PartError>([Backend::on_free_ports()?, Backend::on_free_ports()?])
    });
    let [api1, api2] = backends.await?;
    let backends = blocking("find free ports", || {
        Ok::<_, PartError>([Backend::on_free_ports()?, Backend::on_free_ports()?])
    });
    let [gateway1, gateway2] = backends.await?;
    // HAProxy's listeners ask for a PROXY header, and give a client one of the two gateways: the APIs follow both.
    let brokers = blocking("find free ports", || {
        Ok::<_, PartError>([process::free_port()?, process::free_port()?].map(loopback))
    });
    let brokers = brokers.await?;
    let admin = |backend: Backend, offset: u16| Backend {
        admin_port: args.admin_port.saturating_add(offset),
        ..backend
    };
    let gateways = [admin(gateway1, 0), admin(gateway2, 1)];
    let apis = [admin(api1, 2), admin(api2, 3)];
    let options = HaproxyOptions {
        config: args.haproxy_config.clone(),
        dir: args.dir.join("haproxy"),
        rest: loopback(args.rest_port),
        internal: loopback(0),
        mqtt: loopback(args.mqtt_port),
        apis,
        gateways,
    };
    let haproxy = blocking("start HAProxy", move || Haproxy::start(options)).await?;

    let common = Common {
        dir: args.dir.clone(),
        bootstrap: kafka.bootstrap(),
        database_url: postgres.url(DATABASE),
        ingest_url: format!("http://{}", haproxy.internal()),
        brokers,
    };
    let (api_processes, gateway_processes) = blocking("start the servers", move || {
        let apis = each("api", &apis, |number, backend| common.api(number, backend))?;
        let gateways = each("gateway", &gateways, |number, backend| {
            common.gateway(number, backend)
        })?;
        Ok::<_, StartFault>((apis, gateways))
    })
    .await?;
    let haproxy = blocking("put the servers behind HAProxy", move || all_up(haproxy)).await?;
    let cluster = Cluster::open(&KafkaConfig {
        bootstrap_servers: kafka.bootstrap(),
        ..KafkaConfig::default()
    })?;
    let servers = Servers {
        gateways: gateway_processes,
        haproxy,
        apis: api_processes,
        kafka,
    };
    Ok(Site {
        mqtt: loopback(args.mqtt_port),
        rest: loopback(args.rest_port),
        admin: gateways.iter().chain(&apis).map(Backend::admin).collect(),
        kafka: cluster,
        postgres,
        servers: super::Servers::Real(Box::new(servers)),
    })
}

#[derive(Debug, thiserror::Error)]
enum StartFault {
    #[error(transparent)]
    Part(#[from] PartError),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot find the program that is running")]
    Program(#[source] std::io::Error),
    #[error("HAProxy finds {0} of 6 servers well: their logs are beside its own")]
    Servers(usize),
}

/// What every server of this site is told.
struct Common {
    dir: PathBuf,
    bootstrap: String,
    database_url: String,
    ingest_url: String,
    /// The gateways' listeners for the APIs.
    brokers: [SocketAddr; 2],
}

impl Common {
    fn api(&self, number: usize, backend: &Backend) -> Result<Process, StartFault> {
        let [first, second] = self.brokers;
        let config = format!(
            "[api.listener]\nlisten = \"{}\"\nproxy_protocol = \"required\"\n\n[api.database]\nurl = \"{}\"\n\n\
             [api.mqtt]\naddresses = [\"{}\", \"{}\"]\n\n\
             [bridge.kafka]\nbootstrap_servers = \"{}\"\n\n[admin]\nlisten = \"{}\"\n",
            backend.address,
            self.database_url,
            first,
            second,
            self.bootstrap,
            backend.admin(),
        );
        spawn(&self.dir, "api", number, &config)
    }

    fn gateway(&self, number: usize, backend: &Backend) -> Result<Process, StartFault> {
        let [first, second] = self.brokers;
        let broker = if number == 1 { first } else { second };
        let config = format!(
            "[gateway]\nid = \"up-{number}\"\ndata_dir = {:?}\n\n[mqtt.auth]\nallow_anonymous = true\n\n\
             [[mqtt.listeners]]\nlisten = \"{}\"\nproxy_protocol = \"required\"\n\n\
             [[mqtt.listeners]]\nlisten = \"{}\"\n\n[bridge.kafka]\n\
             bootstrap_servers = \"{}\"\n\n[bridge.api]\nurl = \"{}\"\n\n[admin]\nlisten = \"{}\"\n",
            self.dir.join(format!("gateway-{number}")),
            backend.address,
            broker,
            self.bootstrap,
            self.ingest_url,
            backend.admin(),
        );
        spawn(&self.dir, "gateway", number, &config)
    }
}

/// From here on a client keeps to one API and a device to one gateway: none is still to join.
fn all_up(haproxy: Haproxy) -> Result<Haproxy, StartFault> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let servers = haproxy.servers()?;
        if servers == (ServerCounts { up: 6, down: 0 }) {
            return Ok(haproxy);
        }
        if Instant::now() > deadline {
            return Err(StartFault::Servers(servers.up));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn each(
    part: &'static str,
    backends: &[Backend],
    start: impl Fn(usize, &Backend) -> Result<Process, StartFault>,
) -> Result<Vec<Process>, StartFault> {
    let mut processes = Vec::new();
    for (index, backend) in backends.iter().enumerate() {
        processes.push(start(index + 1, backend)?);
    }
    for (process, backend) in processes.iter_mut().zip(backends) {
        let address = backend.admin();
        tracing::debug!(part, %address, "waiting for it");
        process.wait_ready(START_TIMEOUT, |_id| {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        })?;
    }
    Ok(processes)
}

/// Starts `shopfloor <part> --config <dir>/<part>-<number>.toml`, logging beside it.
fn spawn(dir: &Path, part: &'static str, number: usize, config: &str) -> Result<Process, StartFault> {
    let path = dir.join(format!("{part}-{number}.toml"));
    std::fs::write(&path, config).map_err(|source| StartFault::Write {
        path: path.clone(),
        source,
    })?;
    let program = std::env::current_exe().map_err(StartFault::Program)?;
    Ok(Process::spawn(Spec {
        part,
        program: &program,
        args: vec![part.into(), "--config".into(), path.into()],
        env: Vec::new(),
        user: None,
        log: dir.join(format!("{part}-{number}.log")),
        stop_signal: Signal::TERM,
        remove: None,
    })?)
}

impl Servers {
    /// Devices first, then what the gateways post to, then Kafka.
    pub(super) async fn stop(self) -> Result<()> {
        blocking("stop the servers", move || {
            for mut process in self.gateways.into_iter().chain(self.apis) {
                process.stop()?;
            }
            self.haproxy.stop()?;
            self.kafka.stop()
        })
        .await
        .context("what was not delivered is in the gateways' spools")
    }
}
