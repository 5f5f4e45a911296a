//! What a gateway finds when it starts, and what it says of that.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use shopfloor::parts::Backend;
use shopfloor_tests::server::Server;
use shopfloor_tests::{http, wait};

use crate::gateway::{config, publish, start, unit};
use crate::spool::WITHIN;

/// Kafka is not there, so the spool keeps everything.
fn no_kafka() -> String {
    let nobody = Backend::on_free_ports().unwrap().address;
    format!("[bridge.kafka]\nbootstrap_servers = \"{nobody}\"\n")
}

fn log(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(dir.join("log")).unwrap()).into_owned()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("data/spool")).unwrap();
    let mut segments: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    segments.retain(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("segment-")
    });
    segments.sort();
    segments
}

fn assert_refused(mut server: Server, dir: &Path, reasons: &[&str]) {
    wait::until("the gateway's end", WITHIN, || {
        wait::holds(!server.is_running(), log(dir))
    });
    for reason in reasons {
        assert!(log(dir).contains(reason), "{reason} is not in {}", log(dir));
    }
}

#[test]
fn a_record_that_a_crash_cut_short_is_told_with_its_segment_and_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let mut gateway = start(dir.path(), at, &no_kafka());
    publish(at, "press-7", "supply-chain", &[unit(7, 1), unit(7, 2)]);
    assert_eq!(gateway.metric("shopfloor_spool_torn_bytes_total"), Some(0.0));
    gateway.kill();

    // The next record, of which no more than its header and the start of its payload reached the disk.
    let segment = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let last = bytes
        .windows(8)
        .rposition(|window| window == b"\"partId\"")
        .unwrap();
    let end = last + bytes[last..].iter().position(|byte| *byte == b'}').unwrap() + 1;
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&7_u32.to_le_bytes());
    header[4..8].copy_from_slice(&500_u32.to_le_bytes());
    header[16..24].copy_from_slice(&3_u64.to_le_bytes());
    let file = File::options().write(true).open(&segment).unwrap();
    file.write_all_at(&header, end as u64).unwrap();
    file.write_all_at(b"{\"timeOf", end as u64 + 24).unwrap();

    gateway.restart();
    gateway.wait_ready();
    let said = log(dir.path());
    let told = said
        .lines()
        .find(|line| line.contains("cut an unfinished record"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(
        told.contains(segment.to_str().unwrap()) && told.contains("bytes=524"),
        "{told}"
    );
    assert_eq!(gateway.metric("shopfloor_spool_torn_bytes_total"), Some(524.0));
    publish(at, "press-7", "supply-chain", &[unit(7, 3)]);
}

#[test]
fn a_second_gateway_on_the_same_directory_ends_with_the_reason_and_disturbs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let _first = start(dir.path(), at, &no_kafka());
    let second_at = Backend::on_free_ports().unwrap();
    let second_dir = dir.path().join("second");
    let second = Server::spawn(
        "gateway",
        &second_dir,
        &config(dir.path(), second_at, &no_kafka()),
        second_at.admin(),
    );
    assert_refused(second, &second_dir, &["data/spool", "another process"]);
    publish(at, "press-7", "supply-chain", &[unit(7, 1)]);
    assert_eq!(http::get(at.admin(), "/ready").unwrap().status, 200);
}

#[test]
fn the_directory_of_another_gateway_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let mut gateway = start(dir.path(), at, &no_kafka());
    publish(at, "press-7", "supply-chain", &[unit(7, 1)]);
    gateway.kill();
    let before = segments(dir.path())
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect::<Vec<_>>();

    let other = config(dir.path(), at, &no_kafka()).replace("\"line-1\"", "\"line-2\"");
    let other_dir = dir.path().join("other");
    let server = Server::spawn("gateway", &other_dir, &other, at.admin());
    assert_refused(server, &other_dir, &["line-1", "line-2"]);
    let after = segments(dir.path())
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect::<Vec<_>>();
    assert!(before == after, "its bytes were changed");

    gateway.restart();
    gateway.wait_ready();
    publish(at, "press-7", "supply-chain", &[unit(7, 2)]);
}

/// Somebody made room by hand, and took what was not delivered.
#[test]
fn a_segment_that_was_deleted_is_told_with_its_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let mut gateway = start(dir.path(), at, &no_kafka());
    for round in 0..3 {
        let large = (0..12).map(|n| {
            let note = "x".repeat(60_000);
            format!(
                r#"{{"id":{},"name":"Steel","note":"{note}"}}"#,
                100 * round + n + 1
            )
        });
        publish(at, "press-7", "material", &large.collect::<Vec<_>>());
    }
    gateway.kill();
    let all = segments(dir.path());
    assert!(all.len() >= 3, "{all:?}");
    fs::remove_file(&all[1]).unwrap();
    let first_of = |path: &Path| -> u64 {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.trim_start_matches("segment-").parse().unwrap()
    };
    gateway.restart();
    gateway.wait_ready();
    let said = log(dir.path());
    let (first, last) = (first_of(&all[1]), first_of(&all[2]) - 1);
    assert!(
        said.contains(&format!("first={first} last={last} cause=")),
        "{first} to {last} are not in {said}"
    );
    publish(at, "press-7", "supply-chain", &[unit(7, 1)]);
}

#[test]
fn a_cursor_ahead_of_the_spool_skips_nothing_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let at = Backend::on_free_ports().unwrap();
    let mut gateway = start(dir.path(), at, &no_kafka());
    publish(at, "press-7", "supply-chain", &[unit(7, 1)]);
    gateway.kill();
    // Put back from another day's copy: two slots, "CURS", generation, position, checksum.
    let cursor = dir.path().join("data/spool/cursor-kafka");
    let mut slot = b"CURS".to_vec();
    slot.extend(9_999_u64.to_le_bytes());
    slot.extend(500_u64.to_le_bytes());
    slot.extend(crc32c::crc32c(&slot).to_le_bytes());
    let mut file = File::options().write(true).open(&cursor).unwrap();
    file.write_all(&slot).unwrap();
    gateway.restart();
    gateway.wait_ready();
    publish(at, "press-7", "supply-chain", &[unit(7, 2)]);
    let status = shopfloor_tests::operator::shopfloor(&[
        "spool",
        "status",
        "--json",
        "--data-dir",
        dir.path().join("data").to_str().unwrap(),
    ])
    .ended(0)
    .json()
    .remove(0);
    assert_eq!(status["next_sequence"], 501, "{status}");
    assert_eq!(
        status["sinks"][0]["lag_records"], 1,
        "the new one waits: {status}"
    );
}
