//! A gateway that may open fewer files than its configuration permits connections.

use std::net::TcpStream;
use std::time::Duration;

use shopfloor::parts::Backend;
use shopfloor_tests::server::Server;
use shopfloor_tests::{http, wait};

use crate::gateway::{config, publish, unit};

const OPEN_FILES: u32 = 600;

#[test]
fn connections_never_take_the_files_that_the_gateway_itself_needs() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let config = config(
        dir.path(),
        at,
        "[bridge.kafka]\nbootstrap_servers = \"127.0.0.1:1\"\n",
    );
    let mut server = Server::spawn_with_open_files("gateway", dir.path(), &config, at.admin(), OPEN_FILES);
    server.wait_ready();
    let silent: Vec<_> = (0..OPEN_FILES)
        .map(|_| TcpStream::connect(at.address).expect("it waits in the backlog at the worst"))
        .collect();
    let places = || {
        let metrics = http::get(at.admin(), "/metrics")
            .expect("the admin endpoint answers")
            .body;
        let open = metrics
            .lines()
            .find_map(|line| line.strip_prefix(r#"shopfloor_connections{listener="mqtt"} "#));
        open.map_or(0, |open| open.parse::<u32>().expect("a number"))
    };
    wait::until("every place is taken", Duration::from_secs(10), || {
        wait::holds(places() > 50, places())
    });
    assert!(places() < OPEN_FILES / 2, "{} connections", places());
    assert_eq!(http::get(at.admin(), "/ready").expect("an answer").status, 200);
    drop(silent);
    publish(at, "press", "supply-chain", &[unit(1, 1)]);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("the limit of open files is below"), "{log}");
}
