//! Whatever a front may offer fits a commit of a real spool.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use prost::Message as _;
use shopfloor_broker::tap::{Publisher, Topic};
use shopfloor_proto::v1::UnitProduced;

use super::*;
use crate::routes::rule::default_routes;
use crate::spool::SpoolConfig;

/// As many as share a batch of the front's.
const RELEASED: u16 = 256;

fn ingest(dir: &Path, commit_max_bytes: u64) -> Ingest {
    let config = SpoolConfig {
        segment_max_bytes: 8 * 1024 * 1024,
        queue_max_bytes: 8 * commit_max_bytes,
        min_free_disk_bytes: 0,
        commit_max_bytes,
        ..SpoolConfig::default()
    };
    let spool = Spool::open(&dir.join("spool"), "gw", config).unwrap();
    let exchanges = Arc::new(Exchanges::recover(dir, &spool).unwrap());
    let routes = RouteTable::compile(&default_routes()).unwrap();
    Ingest::new(routes, spool, exchanges, true, commit_max_bytes)
}

fn message(payload: Vec<u8>, client_id: &str) -> Published {
    Published {
        topic: Topic::from("supply-chain"),
        payload: payload.into(),
        qos: 1,
        retain: false,
        properties: None,
        publisher: Arc::new(Publisher {
            client_id: client_id.into(),
            user: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            v5: true,
        }),
        received_ms: 1_702_166_400_999,
        exchange: None,
    }
}

/// JSON writes each byte of its text as six.
fn escaped(bytes: usize) -> Vec<u8> {
    let unit = UnitProduced {
        var2: Some("\u{1}".repeat(bytes)),
        machine_id: 1,
        part_id: 1,
        ..UnitProduced::default()
    };
    unit.encode_to_vec()
}

fn offer(ingest: &Ingest, batch: Batch) -> Vec<Verdict> {
    let receipt = ingest.offer(batch).expect("the batch is taken");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(receipt).expect("the batch is stored")
}

fn as_protobuf(mut message: Published) -> Published {
    let properties = shopfloor_broker::tap::Properties {
        content_type: Some(shopfloor_proto::CONTENT_TYPE.into()),
        ..Default::default()
    };
    message.properties = Some(Box::new(properties));
    message
}

#[test]
fn a_payload_that_is_too_large_as_json_becomes_a_dead_letter_and_what_comes_behind_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let ingest = ingest(dir.path(), SpoolConfig::default().commit_max_bytes);
    let verdicts = offer(
        &ingest,
        vec![as_protobuf(message(escaped(900_000), "press"))].into(),
    );
    let [Verdict::DeadLettered { reason }] = verdicts.as_slice() else {
        panic!("{verdicts:?}");
    };
    assert!(reason.contains("as JSON, where at most"), "{reason}");
    let unit =
        r#"{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":5,"var5":false,"machineId":7,"partId":4}"#;
    let verdicts = offer(&ingest, vec![message(unit.into(), "press")].into());
    assert_eq!(verdicts, [Verdict::Stored]);
}

#[test]
fn a_full_batch_fits_a_commit_whatever_its_messages_become() {
    let client_id = "c".repeat(2 * MAX_CLIENT_ID_BYTES);
    for commit_max_bytes in [128 * 1024, 4 * 1024 * 1024] {
        let kinds = [
            message(vec![0xff; 8], &client_id),
            as_protobuf(message(escaped(100), &client_id)),
            as_protobuf(message(escaped(3_000), &client_id)),
        ];
        for message in kinds {
            let dir = tempfile::tempdir().unwrap();
            let ingest = ingest(dir.path(), commit_max_bytes);
            let count = (ingest.max_batch_bytes() / message.batch_bytes()).max(1);
            let released = (1..=RELEASED).map(|packet_id| Exchange {
                session: u64::MAX,
                packet_id,
                content: u32::MAX,
            });
            let batch = Batch {
                released: released.collect(),
                messages: vec![message; count],
            };
            assert_eq!(offer(&ingest, batch).len(), count);
        }
    }
}
