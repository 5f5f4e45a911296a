//! The whole, as the suite runs it: one gateway behind HAProxy, two APIs, Kafka, Postgres, and a wire that can hang
//! in every place.
//!
//! Every timeout on the way is short, so that a fault which outlasts them all is short too.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shopfloor::parts::{Backend, Haproxy, HaproxyOptions, Kafka, PartError, Postgres, process};
use shopfloor_tests::api::Api;
use shopfloor_tests::gateway::Gateway;
use shopfloor_tests::proxy::Proxy;
use shopfloor_tests::server::Server;
use shopfloor_tests::{kafka, postgres, repository, stack};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::fault::{Fault, Wire};

/// Longest wait for an answer on the way; HAProxy's limits alone are above it, as they are above its servers'.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of the device connections: a gateway leaves a silent device after 1.5 times this.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Longer than each of them.
pub const OUTLAST: Duration = Duration::from_millis(3_500);
/// One file of the spool: small, so that a run begins and recycles many.
const SEGMENT_BYTES: u64 = 1024 * 1024;

const DATABASE: &str = "factory";
const TOKEN: &str = "a token of the chaos suite";

/// What a rig is for.
#[derive(Debug)]
pub struct Options<'a> {
    /// Those that it must be able to suffer.
    pub faults: &'a [Fault],
    /// The gateway's `bridge.kafka.delivery`; its default where none is given.
    pub delivery: Option<&'a str>,
    pub limits: Limits,
}

/// Of the gateway's spool, and how long the parts wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// So small that every fault reaches them.
    Small,
    /// The defaults.
    Default,
}

/// The running whole. Fields drop in the order in which they stand: clients of a part before the part.
#[derive(Debug)]
pub struct Rig {
    pub gateway: Server,
    pub apis: [Server; 2],
    pub haproxy: Haproxy,
    pub kafka: Kafka,
    pub postgres: Postgres,
    pub wires: Wires,
    /// The gateway's, where a fault wants one of its own.
    pub disk: Option<Disk>,
    /// Where a fault wants one that can be set.
    pub clock: Option<Clock>,
    dir: tempfile::TempDir,
}

/// The wires between the parts.
#[derive(Debug)]
pub struct Wires {
    devices: Proxy,
    kafka: Proxy,
    api: Proxy,
    postgres: Proxy,
}

impl Wires {
    pub fn get(&self, wire: Wire) -> &Proxy {
        match wire {
            Wire::Devices => &self.devices,
            Wire::Kafka => &self.kafka,
            Wire::Api => &self.api,
            Wire::Postgres => &self.postgres,
        }
    }
}

impl Rig {
    /// Starts everything that the faults need and loads the reference data. `None` where real Kafka cannot be had and
    /// need not be.
    pub fn start(runtime: &Handle, options: &Options<'_>) -> Option<Self> {
        let faults = options.faults;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let wanted = |which: &[Fault]| faults.iter().any(|fault| which.contains(fault));
        let disk = wanted(&[Fault::DiskFull, Fault::ReadOnly])
            .then(|| Disk::mount(&data_dir(dir.path())).expect("a disk for the gateway"));
        let clock =
            wanted(&[Fault::ClockStep]).then(|| Clock::new(dir.path()).expect("a clock that can be set"));
        let clocked = clock.as_ref().map(Clock::environment).unwrap_or_default();
        let open = |to: SocketAddr| runtime.block_on(Proxy::start(to));
        // Clients are told the wire's port, so the wire must know the node's before it runs.
        let at_kafka = SocketAddr::from((Ipv4Addr::LOCALHOST, ok(process::free_port())));
        let to_kafka = open(at_kafka);
        let advertised = to_kafka.address().port();
        let starting = std::thread::spawn(move || kafka::behind(at_kafka.port(), advertised));
        let postgres = postgres::own();
        ok(postgres.create_database(DATABASE));
        let to_postgres = open((Ipv4Addr::LOCALHOST, postgres.port()).into());
        let kafka = starting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;

        let backend = || ok(Backend::on_free_ports());
        let (at_apis, at_gateway) = ([backend(), backend()], backend());
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let haproxy = ok(Haproxy::start(HaproxyOptions {
            config: repository::haproxy_config(),
            dir: dir.path().join("haproxy"),
            rest: free,
            internal: free,
            mqtt: free,
            apis: at_apis,
            // Order per machine is one gateway's promise: the second place stays empty.
            gateways: [at_gateway, backend()],
        }));
        let wires = Wires {
            devices: open(haproxy.mqtt()),
            kafka: to_kafka,
            api: open(haproxy.internal()),
            postgres: to_postgres,
        };

        let database_url = postgres.url(DATABASE).replace(
            &postgres.port().to_string(),
            &wires.postgres.address().port().to_string(),
        );
        let for_apis = match options.limits {
            Limits::Small => small_api(),
            Limits::Default => Vec::new(),
        };
        let mut apis = [1, 2].map(|number| {
            Api {
                dir: &dir.path().join(format!("api-{number}")),
                at: at_apis[number - 1],
                database_url: &database_url,
                bootstrap: &kafka.bootstrap(),
                token: TOKEN,
                env: &[for_apis.clone(), clocked.clone()].concat(),
            }
            .spawn()
        });
        let mut gateway = Gateway {
            dir: &dir.path().join("gateway"),
            id: "gateway-1",
            at: at_gateway,
            bootstrap: &kafka.bootstrap(),
            api: wires.api.address(),
            token: TOKEN,
            env: &[gateway_settings(options), clocked].concat(),
        }
        .spawn();
        for server in apis.iter_mut().chain([&mut gateway]) {
            server.wait_ready();
        }
        stack::load_reference(haproxy.rest());
        Some(Self {
            gateway,
            apis,
            haproxy,
            kafka,
            postgres,
            wires,
            disk,
            clock,
            dir,
        })
    }

    /// A place for the run's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a psql script prints, past every wire.
    pub fn psql(&self, script: &str) -> Result<String, PartError> {
        self.postgres.psql(DATABASE, script)
    }

    /// Where the gateway keeps its spool.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir())
    }

    /// Everything that the gateway has said, over all its lives.
    pub fn gateway_log(&self) -> std::io::Result<String> {
        std::fs::read(self.gateway.dir().join("log")).map(|log| String::from_utf8_lossy(&log).into_owned())
    }

    /// The logs and the spool of a run that failed.
    pub fn keep(self) -> PathBuf {
        if self.disk.is_some() {
            let to = self.dir().join("gateway/data-kept");
            let copied = Command::new("cp").arg("-a").arg(self.data_dir()).arg(to).status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("the spool could not be kept");
            }
        }
        self.dir.keep()
    }
}

/// As [`Gateway`] configures it.
fn data_dir(dir: &Path) -> PathBuf {
    dir.join("gateway/data")
}

fn gateway_settings(options: &Options<'_>) -> Vec<(String, String)> {
    let mut settings = match options.limits {
        Limits::Small => small_gateway(),
        Limits::Default => Vec::new(),
    };
    if let Some(delivery) = options.delivery {
        settings.extend(self::settings(&[("BRIDGE__KAFKA__DELIVERY", &delivery)]));
    }
    settings
}

fn small_gateway() -> Vec<(String, String)> {
    let timeout_ms = TIMEOUT.as_millis();
    settings(&[
        ("MQTT__CONNECT_TIMEOUT_MS", &timeout_ms),
        ("MQTT__WRITE_TIMEOUT_MS", &timeout_ms),
        ("MQTT__MAX_KEEP_ALIVE_S", &KEEP_ALIVE.as_secs()),
        ("MQTT__MAX_PACKET_BYTES", &(SEGMENT_BYTES / 16)),
        ("BRIDGE__SPOOL__MAX_BYTES", &(48 * SEGMENT_BYTES)),
        ("BRIDGE__SPOOL__SEGMENT_MAX_BYTES", &SEGMENT_BYTES),
        ("BRIDGE__SPOOL__COMMIT_MAX_BYTES", &(SEGMENT_BYTES / 8)),
        ("BRIDGE__SPOOL__QUEUE_MAX_BYTES", &(4 * SEGMENT_BYTES)),
        // So little that sinks which fall behind read from the disk.
        ("BRIDGE__SPOOL__HOT_MAX_BYTES", &(SEGMENT_BYTES / 2)),
        ("BRIDGE__SPOOL__MIN_FREE_DISK_BYTES", &0),
        (
            "BRIDGE__KAFKA__PROPERTIES",
            &format!("{{ \"socket.timeout.ms\" = \"{timeout_ms}\" }}"),
        ),
        ("BRIDGE__API__TIMEOUT_MS", &timeout_ms),
        ("BRIDGE__API__MAX_BACKOFF_MS", &1000),
    ])
}

fn small_api() -> Vec<(String, String)> {
    let timeout_ms = TIMEOUT.as_millis();
    settings(&[
        ("API__REQUEST_TIMEOUT_MS", &timeout_ms),
        ("API__MQTT__PUBLISH_TIMEOUT_MS", &1000),
        ("API__DATABASE__CONNECT_TIMEOUT_MS", &1000),
        ("API__DATABASE__STATEMENT_TIMEOUT_MS", &1500),
    ])
}

fn settings(all: &[(&str, &dyn std::fmt::Display)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(name, value)| (format!("SHOPFLOOR_{name}"), value.to_string()))
        .collect()
}

pub(crate) fn ok<T>(result: Result<T, PartError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
