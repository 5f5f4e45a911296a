//! `shopfloor api` with nothing but a Postgres: no configuration file, no Kafka.

use std::net::{Ipv4Addr, SocketAddr};

use shopfloor::parts::process::free_port;
use shopfloor_tests::operator;
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
        assert!(
            !list.headers.contains("\r\nx-ratelimit-limit:"),
            "{}",
            list.headers
        );
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

#[test]
fn an_argument_that_cannot_be_used_is_named_with_the_remedy() {
    let good = "postgres://shopfloor@127.0.0.1:1/factory";
    for (args, named, remedy) in [
        (["--listen", "localhost"], "--listen", "127.0.0.1:3002"),
        (["--listen", "foo"], "--listen", "127.0.0.1:3002"),
        (["--admin", "127.0.0.1"], "--admin", "127.0.0.1:3002"),
        (
            ["--admin", "127.0.0.1:3002"],
            "api.listener.listen",
            "another port",
        ),
        (["--rate-limit", "-3"], "--rate-limit", "whole number from 1"),
        (["--rate-limit", "many"], "--rate-limit", "whole number from 1"),
        (
            ["--rate-limit", "99999999"],
            "api.rate_limit.requests",
            "use a value from",
        ),
        (
            ["--database-url", "postgres://h/d?sslmode=strict"],
            "api.database.url",
            "leave sslmode out",
        ),
        (
            ["--database-url", "postgres://h/d?sslmode=require"],
            "api.database.url",
            "leave sslmode out",
        ),
        (
            ["--database-url", "factory"],
            "api.database.url",
            "postgres://user:password@host",
        ),
    ] {
        let mut all = vec!["api"];
        if args[0] != "--database-url" {
            all.extend(["--database-url", good]);
        }
        all.extend(args);
        let ran = operator::shopfloor(&all);
        assert_ne!(ran.code, 0, "{args:?}");
        assert!(
            ran.stderr.contains(named) && ran.stderr.contains(remedy),
            "{args:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn an_address_that_is_taken_is_told_and_leaves_the_database_as_it_was() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (taken_at, free) = (
        taken.local_addr().unwrap().to_string(),
        free_address().to_string(),
    );
    let url = postgres::database("untouched");
    for (listen, admin) in [(&taken_at, &free), (&free, &taken_at)] {
        let args = [
            "api",
            "--database-url",
            &url,
            "--listen",
            listen,
            "--admin",
            admin,
        ];
        let ran = operator::shopfloor(&args).ended(1);
        assert!(ran.stderr.contains(&taken_at), "{}", ran.stderr);
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let name = url.rsplit('/').next().unwrap();
    assert_eq!(postgres::shared().psql(name, tables).unwrap().trim(), "0");
}
