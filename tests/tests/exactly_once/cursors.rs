//! Whose cursor counts: of a twin, of a spool that was wiped; and who cannot read transactions.

use std::path::Path;

use shopfloor_tests::edge::{Edge, WITHIN, await_committed, read_committed, text};
use shopfloor_tests::python::MigrationClient;
use shopfloor_tests::{http, kafka, wait};

use crate::{EXACTLY_ONCE, texts};

#[test]
fn a_gateway_whose_id_another_one_took_stops_delivering_and_says_so() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let twin = |dir: &Path| {
        Edge {
            dir,
            id: "twin",
            bootstrap: &bootstrap,
            topic: "twins",
            schema: "raw",
            kafka: EXACTLY_ONCE,
        }
        .start()
    };
    let values = || -> Vec<String> {
        let mut values: Vec<_> = read_committed(&bootstrap, &["twins"]).iter().map(text).collect();
        values.sort();
        values
    };
    let first = twin(dirs[0].path());
    first.publish("twins", texts("first", 100));
    await_committed(&bootstrap, "twins", 100);

    let second = twin(dirs[1].path());
    second.publish("twins", texts("second", 100));
    await_committed(&bootstrap, "twins", 200);
    first.publish("twins", texts("late", 100));
    wait::until("the first one says that it was replaced", WITHIN, || {
        let ready = http::get(first.server.admin(), "/ready").unwrap();
        wait::holds(
            ready.status == 503 && ready.body.contains("another gateway with the id"),
            format!("{ready:?}"),
        )
    });
    // It does not take the id back.
    second.publish("twins", texts("undisturbed", 100));
    await_committed(&bootstrap, "twins", 300);
    second.server.stop();
    first.server.stop();

    let first = twin(dirs[0].path());
    await_committed(&bootstrap, "twins", 400);
    first.server.stop();
    let mut expected: Vec<_> = ["first", "second", "undisturbed", "late"]
        .into_iter()
        .flat_map(|what| texts(what, 100))
        .collect();
    expected.sort();
    assert_eq!(values(), expected);
}

#[test]
fn a_spool_that_was_wiped_loses_nothing_to_the_cursor_of_the_old_one() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge {
        dir: dir.path(),
        id: "wiped",
        bootstrap: &bootstrap,
        topic: "wiped",
        schema: "raw",
        kafka: EXACTLY_ONCE,
    };
    let gateway = edge.start();
    gateway.publish("wiped", texts("old", 100));
    await_committed(&bootstrap, "wiped", 100);
    gateway.server.stop();

    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    // In the new spool are more records than Kafka's cursor counts, when the sink first sees that.
    let unconnected = Edge {
        bootstrap: "127.0.0.1:1",
        ..edge
    };
    let gateway = unconnected.start();
    gateway.publish("wiped", texts("new", 150));
    gateway.server.stop();
    let gateway = edge.start();
    await_committed(&bootstrap, "wiped", 250);
    gateway.server.stop();
    let mut values: Vec<_> = read_committed(&bootstrap, &["wiped"]).iter().map(text).collect();
    values.sort();
    let mut expected: Vec<_> = texts("old", 100).chain(texts("new", 150)).collect();
    expected.sort();
    assert_eq!(values, expected);
}

/// Why delivery is at least once unless it is said otherwise.
#[test]
fn the_old_python_client_takes_a_commit_marker_for_a_record_and_dies() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let dir = tempfile::tempdir().unwrap();
    let gateway = Edge {
        dir: dir.path(),
        id: "marker",
        bootstrap: &bootstrap,
        topic: "supply_chain",
        schema: "supply_chain",
        kafka: EXACTLY_ONCE,
    }
    .start();
    let unit = r#"{"machineId":1,"partId":4,"var5":false,"timeOfProduction":"2023-12-10T00:00:00.000Z","isDeleted":false,"lastUpdate":"2023-12-10 00:00:01.0000000"}"#;
    gateway.publish("supply_chain", [unit.to_owned()]);
    await_committed(&bootstrap, "supply_chain", 1);
    let mut client = MigrationClient::start(&bootstrap, &["supply_chain"]);
    let reading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until("the client's end", WITHIN, || {
            client.look(|records| wait::holds(false, records.len()))
        });
    }));
    let end = *reading.unwrap_err().downcast::<String>().unwrap();
    assert!(end.contains(r"b'\x00\x00\x00\x00\x00\x00'"), "{end}");
    gateway.server.stop();
}
