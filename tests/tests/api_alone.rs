//! `shopfloor api` with nothing but a Postgres: no configuration file, no Kafka.

use std::net::{Ipv4Addr, SocketAddr};

use shopfloor::parts::process::free_port;
use shopfloor_tests::server::Server;
use shopfloor_tests::{http, postgres};

fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port().unwrap()).into()
}

fn start(dir: &std::path::Path, database: &str, listen: SocketAddr, more: &[&str]) -> Server {
    let admin = free_address();
    let (listen, address) = (listen.to_string(), admin.to_string());
    let args = [
        "--database-url",
        database,
        "--listen",
        &listen,
        "--admin",
        &address,
    ];
    let args = args.iter().chain(more).map(Into::into).collect();
    let mut server = Server::with_args("api", dir, args, admin);
    server.wait_ready();
    server
}

fn level(name: &str) -> String {
    let sql = "SELECT max(version) FROM refinery_schema_history";
    postgres::shared().psql(name, sql).unwrap().trim().to_owned()
}

#[test]
fn it_migrates_the_postgres_that_it_is_given_and_answers() {
    let (dir, url, listen) = (
        tempfile::tempdir().unwrap(),
        postgres::database("alone"),
        free_address(),
    );
    let server = start(dir.path(), &url, listen, &["--rate-limit", "off"]);
    for _ in 0..60 {
        let list = http::get(listen, "/api/v1/machine").unwrap();
        assert_eq!(
            (
                list.status,
                list.body.ends_with("]\r\n0\r\n\r\n") || list.body == "[]"
            ),
            (200, true)
        );
        assert!(!list.headers.contains("x-ratelimit-limit"), "{}", list.headers);
    }
    let created = http::request(Ipv4Addr::LOCALHOST.into(), listen, "POST", "/api/v1/machine").unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let name = url.rsplit('/').next().unwrap();
    let waiting = postgres::shared()
        .psql(name, "SELECT count(*) FROM outbox")
        .unwrap();
    assert_eq!(waiting.trim(), "1", "without Kafka the record waits");
    server.stop();
}

#[test]
fn the_rate_limit_is_an_argument_too() {
    let (dir, url, listen) = (
        tempfile::tempdir().unwrap(),
        postgres::database("limited"),
        free_address(),
    );
    let server = start(dir.path(), &url, listen, &["--rate-limit", "2"]);
    let statuses = [(); 3].map(|()| http::get(listen, "/api/v1/machine").unwrap().status);
    assert_eq!(statuses, [200, 200, 429]);
    server.stop();
}

#[test]
fn probes_and_metrics_are_on_the_admin_address_alone_and_ready_means_the_migration_level_too() {
    let (dir, url, listen) = (
        tempfile::tempdir().unwrap(),
        postgres::database("probed"),
        free_address(),
    );
    let server = start(dir.path(), &url, listen, &[]);
    let probe = |path| http::get(server.admin(), path).unwrap();
    assert_eq!((probe("/live").status, probe("/ready").status), (200, 200));
    assert_eq!(http::get(listen, "/api/v1/machine").unwrap().status, 200);
    let metrics = probe("/metrics").body;
    assert!(metrics.contains("shopfloor_api_request_seconds"), "{metrics}");
    for path in ["/live", "/ready", "/metrics"] {
        let public = http::get(listen, path).unwrap();
        assert_eq!(public.status, 404, "clients have no business there: {path}");
    }

    let name = url.rsplit('/').next().unwrap();
    let needed = level(name);
    let sql = format!("DELETE FROM refinery_schema_history WHERE version = {needed}");
    postgres::shared().psql(name, &sql).unwrap();
    let behind = probe("/ready");
    assert_eq!((behind.status, probe("/live").status), (503, 200));
    assert!(
        behind.body.contains(&format!("this build needs {needed}")),
        "{}",
        behind.body
    );
    server.stop();
}
