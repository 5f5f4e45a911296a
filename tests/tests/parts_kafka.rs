//! The Kafka part, read as the migration client reads.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use shopfloor_tests::python::{self, MigrationClient};
use shopfloor_tests::{kafka, repository, wait};

const WITHIN: Duration = Duration::from_secs(60);

fn record(machine: u32, order: u32) -> (String, String) {
    let value = format!(
        r#"{{"machineId":{machine},"partId":4,"order":{order},"var5":false,"timeOfProduction":"2023-12-10T00:00:00.000Z","isDeleted":false,"lastUpdate":"2023-12-10 00:00:01.0000000"}}"#
    );
    (machine.to_string(), value)
}

#[test]
fn a_group_of_the_old_python_client_reads_what_was_acknowledged_before_and_after_a_kill() {
    let Some(mut kafka) = kafka::own() else {
        return;
    };
    let bootstrap = kafka.bootstrap();
    let before: Vec<_> = (0..60).map(|n| record(n % 12 + 1, n)).collect();
    python::produce(&bootstrap, "supply_chain", &before);
    let mut client = MigrationClient::start(&bootstrap, &["supply_chain"]);
    wait::until("60 records", WITHIN, || {
        let read = client.look(<[_]>::len);
        wait::holds(read == 60, read)
    });

    kafka.kill().unwrap();
    kafka.restart().unwrap();
    assert_eq!(kafka.bootstrap(), bootstrap);
    let after: Vec<_> = (60..120).map(|n| record(n % 12 + 1, n)).collect();
    python::produce(&bootstrap, "supply_chain", &after);

    let orders = |client: &mut MigrationClient| {
        client.look(|consumed| {
            let orders = consumed.iter().map(|record| record.value["order"].as_u64());
            orders.collect::<BTreeSet<_>>().len()
        })
    };
    wait::until("120 different records", WITHIN, || {
        let read = orders(&mut client);
        wait::holds(read == 120, read)
    });
    let consumed = client.close();
    let partitions: BTreeSet<_> = consumed.iter().map(|record| record.partition).collect();
    assert!(partitions.len() > 1, "12 keys in one partition: {partitions:?}");
    assert!(
        partitions.iter().all(|partition| (0..6).contains(partition)),
        "{partitions:?}"
    );
}

#[test]
fn a_record_that_the_client_refuses_fails_the_test_that_reads_it() {
    let Some(kafka) = kafka::own() else { return };
    let (key, unstamped) = (
        "1".to_owned(),
        record(1, 1).1.replace(r#""isDeleted":false,"#, ""),
    );
    python::produce(&kafka.bootstrap(), "supply_chain", &[(key, unstamped)]);
    let mut client = MigrationClient::start(&kafka.bootstrap(), &["supply_chain"]);
    let reading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until("a record or a refusal", WITHIN, || {
            let read = client.look(<[_]>::len);
            wait::holds(read > 0, "neither")
        });
    }));
    let refusal = *reading.unwrap_err().downcast::<String>().unwrap();
    assert!(refusal.contains("`isDeleted` must be a boolean"), "{refusal}");
}

#[test]
fn the_rules_refuse_what_the_client_refuses() {
    let mut unittest = Command::new(repository::python());
    unittest
        .args(["-B", "-m", "unittest", "test_migration_client"])
        .current_dir(repository::script(""));
    python::run(unittest, String::new()).unwrap();
}
