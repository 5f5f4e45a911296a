//! What a gateway has on disk: while it runs, after a kill, after damage.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use shopfloor::parts::Backend;
use shopfloor_tests::operator::shopfloor;
use shopfloor_tests::wait;

use crate::gateway::{publish, start, unit};

pub(crate) const WITHIN: Duration = Duration::from_secs(30);

fn sink<'a>(status: &'a Value, name: &str) -> &'a Value {
    let sinks = status["sinks"].as_array().unwrap();
    sinks.iter().find(|sink| sink["sink"] == name).unwrap()
}

#[test]
fn what_waits_on_disk_is_seen_on_a_live_gateway_after_a_kill_and_after_damage() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    // Nobody listens there.
    let nobody = Backend::on_free_ports().unwrap().address;
    let kafka = format!("[bridge.kafka]\nbootstrap_servers = \"{nobody}\"\n");
    let mut gateway = start(dir.path(), at, &kafka);
    let units: Vec<String> = (1..=200).map(|order| unit(7, order)).collect();
    publish(at, "press-7", "supply-chain", &units);
    publish(
        at,
        "press-8",
        "supply-chain",
        &["\u{1b}[2J no unit \u{202e}".to_owned()],
    );

    let config = dir.path().join("config.toml");
    let config = config.to_str().unwrap();
    let spool = |args: &[&str]| {
        let mut all = vec!["spool"];
        all.extend(args);
        all.extend(["--config", config]);
        shopfloor(&all)
    };
    let status = |running: bool| {
        let status = spool(&["status", "--json"]).ended(0).json().remove(0);
        assert_eq!(status["gateway"], "line-1");
        assert_eq!(status["process"].is_u64(), running, "{status}");
        assert_eq!(
            (&status["first_sequence"], &status["next_sequence"]),
            (&1.into(), &202.into())
        );
        let kafka = sink(&status, "kafka");
        assert_eq!(
            (&kafka["position"], &kafka["lag_records"]),
            (&1.into(), &201.into())
        );
        assert!(kafka["lag_bytes"].as_u64().unwrap() > 201 * 100, "{status}");
        assert!(kafka["oldest_age_ms"].as_u64().unwrap() < 600_000, "{status}");
        assert!(status["free_disk_bytes"].as_u64().unwrap() > 0, "{status}");
        assert_eq!(status["full"], false);
    };
    status(true);
    let told = spool(&["status"]).ended(0).stdout;
    assert!(
        told.contains("running, process") && told.contains("201 records"),
        "{told}"
    );

    let newest = spool(&["tail", "-n", "3"]).ended(0).stdout;
    let newest: Vec<&str> = newest.lines().collect();
    assert_eq!(newest.len(), 3, "{newest:?}");
    assert!(
        newest[0].starts_with("199  ") && newest[0].contains("supply_chain  key=7  client=press-7"),
        "{newest:?}"
    );
    assert!(
        newest[2].contains(r"\u{1b}[2J no unit \u{202e}") && !newest[2].contains('\u{1b}'),
        "{newest:?}"
    );
    let next = spool(&["tail", "--sink", "kafka", "-n", "2", "--json"])
        .ended(0)
        .json();
    let orders: Vec<Value> = next
        .iter()
        .map(|record| serde_json::from_str(record["payload"].as_str().unwrap()).unwrap())
        .map(|unit: Value| unit["order"].clone())
        .collect();
    assert_eq!(orders, [1, 2], "what Kafka gets next");
    let unknown = spool(&["tail", "--sink", "kafkaa"]).ended(2).stderr;
    assert!(unknown.contains("use kafka"), "{unknown}");
    let whole = spool(&["verify"]).ended(0).stdout;
    assert!(
        whole.contains("201 whole records") && whole.contains("no problem"),
        "{whole}"
    );

    gateway.kill();
    status(false);
    spool(&["verify"]).ended(0);

    let segment = damage(&dir.path().join("data/spool"), "\"order\":100,");
    let damaged = spool(&["verify"]).ended(1).stdout;
    let first = damaged.lines().next().unwrap();
    assert!(
        first.starts_with(&format!("{segment}, bytes "))
            && first.contains(", sequences 100 to 100 (not all delivered to kafka): lost: "),
        "{damaged}"
    );
    assert!(damaged.contains("200 whole records"), "{damaged}");
    let problem = spool(&["verify", "--json"]).ended(1).json().remove(0);
    assert_eq!(
        (
            &problem["problem"],
            &problem["first_sequence"],
            &problem["undelivered_to"][0]
        ),
        (&"corrupt".into(), &100.into(), &"kafka".into())
    );
    // What is whole is still shown.
    let around = spool(&["tail", "--from", "99", "-n", "2", "--json"]).ended(0);
    let sequences: Vec<_> = around
        .json()
        .iter()
        .map(|record| record["sequence"].clone())
        .collect();
    assert_eq!(sequences, [99, 101]);
    assert!(around.stderr.contains("sequences 100 to 100"), "{around:?}");

    let elsewhere = dir.path().join("elsewhere");
    let missing = shopfloor(&["spool", "status", "--data-dir", elsewhere.to_str().unwrap()]).ended(2);
    assert!(
        missing.stderr.contains("there is no such directory"),
        "{missing:?}"
    );
}

/// Flips a bit of the first place where a file of the spool has this text; returns the file's name.
fn damage(spool: &Path, text: &str) -> String {
    for file in fs::read_dir(spool).unwrap() {
        let path = file.unwrap().path();
        let mut content = fs::read(&path).unwrap();
        let found = content
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        if let Some(at) = found {
            content[at + text.len() - 2] ^= 1;
            fs::write(&path, content).unwrap();
            return path.file_name().unwrap().to_str().unwrap().to_owned();
        }
    }
    panic!("{text} is in no file of {}", spool.display());
}

#[test]
fn a_tail_that_follows_shows_what_comes() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let nobody = Backend::on_free_ports().unwrap().address;
    let kafka = format!("[bridge.kafka]\nbootstrap_servers = \"{nobody}\"\n");
    let _gateway = start(dir.path(), at, &kafka);
    publish(at, "press-7", "supply-chain", &[unit(7, 1)]);
    let mut tail = Command::new(shopfloor_tests::repository::binary())
        .env_remove("SHOPFLOOR_REQUIRE_REAL")
        .args(["spool", "tail", "--follow", "--json", "-n", "1", "--data-dir"])
        .arg(dir.path().join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (lines, seen) = std::sync::mpsc::channel();
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines() {
            if lines.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    let next = || {
        let line = seen.recv_timeout(WITHIN).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["sequence"].clone()
    };
    assert_eq!(next(), 1);
    publish(at, "press-7", "supply-chain", &[unit(7, 2), unit(7, 3)]);
    assert_eq!((next(), next()), (2.into(), 3.into()));
    tail.kill().unwrap();
    tail.wait().unwrap();
    reader.join().unwrap();
    wait::until("the gateway is undisturbed", WITHIN, || {
        let ready = shopfloor_tests::http::get(at.admin(), "/ready");
        wait::holds(
            ready.as_ref().is_ok_and(|answer| answer.status == 200),
            format!("{ready:?}"),
        )
    });
}
