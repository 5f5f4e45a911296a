//! All of it behind HAProxy, as `make up` runs it: Kafka, Postgres, two API servers, two gateways.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::time::Duration;

use shopfloor::parts::{Backend, Haproxy, HaproxyOptions, Kafka, PartError, Postgres, ServerCounts};

use crate::api::Api;
use crate::gateway::Gateway;
use crate::server::Server;
use crate::{kafka, postgres, repository, wait};

/// What the migration client reads of machines and of the API.
pub const TOPICS: [&str; 5] = [
    "supply_chain",
    "part_information",
    "material",
    "material_prices",
    "machine",
];
const DATABASE: &str = "factory";
const TOKEN: &str = "a token of the tests";
const WITHIN: Duration = Duration::from_secs(30);

/// The running whole. Fields drop in the order in which they stand: clients of a part before the part.
#[derive(Debug)]
pub struct Stack {
    pub gateways: [Server; 2],
    pub apis: [Server; 2],
    pub haproxy: Haproxy,
    pub kafka: Kafka,
    pub postgres: Postgres,
    _dir: tempfile::TempDir,
}

impl Stack {
    /// Starts everything and loads the reference data: 50 machines, 100 parts, 5 materials. `None` where real Kafka
    /// cannot be had and need not be.
    pub fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // The two that take seconds, side by side.
        let starting_kafka = std::thread::spawn(kafka::own);
        let postgres = postgres::own();
        ok(postgres.create_database(DATABASE));
        let database_url = postgres.url(DATABASE);
        let kafka = starting_kafka
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))?;
        let bootstrap = kafka.bootstrap();

        let backend = || ok(Backend::on_free_ports());
        let (at_apis, at_gateways) = ([backend(), backend()], [backend(), backend()]);
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let haproxy = ok(Haproxy::start(HaproxyOptions {
            config: repository::haproxy_config(),
            dir: dir.path().join("haproxy"),
            rest: free,
            internal: free,
            mqtt: free,
            apis: at_apis,
            gateways: at_gateways,
        }));

        let mut apis = [1, 2].map(|number| {
            Api {
                dir: &dir.path().join(format!("api-{number}")),
                at: at_apis[number - 1],
                database_url: &database_url,
                bootstrap: &bootstrap,
                token: TOKEN,
                env: &[],
            }
            .spawn()
        });
        let mut gateways = [1, 2].map(|number| {
            Gateway {
                dir: &dir.path().join(format!("gateway-{number}")),
                id: &format!("gateway-{number}"),
                at: at_gateways[number - 1],
                bootstrap: &bootstrap,
                api: haproxy.internal(),
                token: TOKEN,
                env: &[],
            }
            .spawn()
        });
        for server in apis.iter_mut().chain(&mut gateways) {
            server.wait_ready();
        }
        let stack = Self {
            gateways,
            apis,
            haproxy,
            kafka,
            postgres,
            _dir: dir,
        };
        // From here on each client has one API and each device one gateway: none is still to join.
        let all = ServerCounts { up: 6, down: 0 };
        wait::until("every server behind HAProxy", WITHIN, || {
            let servers = ok(stack.haproxy.servers());
            wait::holds(servers == all, format!("{servers:?}"))
        });
        load_reference(stack.haproxy.rest());
        Some(stack)
    }

    /// Rows of a query, fields apart by `|`.
    pub fn rows(&self, query: &str) -> Vec<String> {
        ok(self.postgres.psql(DATABASE, query))
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// The factory of the reference data, through the public REST listener.
pub fn load_reference(rest: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(shopfloor::reference::load(&format!("http://{rest}")))
        .unwrap_or_else(|error| panic!("loading the reference data: {error}"));
}

fn ok<T>(result: Result<T, PartError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
