//! The two commands of a first look, as a newcomer runs them: `make run ARGS=--once` and `make up ARGS=--once`.

use std::process::Command;

use shopfloor::parts::process::free_port;
use shopfloor_tests::{python, repository};

/// What `shopfloor up --once` with these arguments printed, if it succeeded.
fn up(more: &[&str]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    // Root's Postgres runs as another user, who must pass.
    make_passable(dir.path());
    let mut command = Command::new(repository::binary());
    command
        .env_remove("SHOPFLOOR_REQUIRE_REAL")
        .current_dir(repository::root())
        .args(["up", "--once", "--messages", "2000", "--dir"])
        .arg(dir.path());
    for port in ["--mqtt-port", "--rest-port", "--admin-port"] {
        command.args([port, &free_port().unwrap().to_string()]);
    }
    command.args(more);
    python::run(command, String::new())
}

fn make_passable(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap();
}

fn last_line(printed: &str) -> &str {
    printed.trim_end().lines().last().unwrap_or_default()
}

#[test]
fn the_first_look_ends_with_equal_counts_in_kafka_and_postgres() {
    let printed = up(&[]).unwrap();
    assert_eq!(
        last_line(&printed),
        "published 2000 acknowledged 2000 kafka 2000 postgres 2000",
        "{printed}"
    );
}

#[test]
fn the_same_on_real_kafka_and_haproxy_ends_with_equal_counts_too() {
    if !repository::kafka_jars().join("pom.xml").is_file() && !repository::require_real() {
        eprintln!("**** NOT RUN, there is no real Kafka: `make kafka` gets its jars by Maven ****");
        return;
    }
    let printed = up(&["--real"]).unwrap();
    assert_eq!(
        last_line(&printed),
        "published 2000 acknowledged 2000 kafka 2000 postgres 2000",
        "{printed}"
    );
}
