//! Subscribers that do not read: what they cost, what becomes of them, and that nobody else feels it. One test, since
//! what is counted is the process's.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::{Duration, Instant};

use common::counted::{by_reason, gauge};
use common::wire::{puback, publish_v311};
use common::{Mode, SOON, Store, config, counted, serve_with};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::SessionConfig;

const PAYLOAD_BYTES: usize = 50_000;
const MAX_QUEUED_BYTES: usize = 1024 * 1024;
const MAX_INFLIGHT: u16 = 10;
const STUCK: usize = 5;

#[tokio::test]
async fn subscribers_that_never_read_cost_a_bounded_buffer_and_nobody_elses_time() {
    counted::start();
    let limits = BrokerConfig {
        write_timeout_ms: 5_000,
        session: SessionConfig {
            max_queued_bytes: MAX_QUEUED_BYTES,
            max_inflight: MAX_INFLIGHT,
            ..SessionConfig::default()
        },
        ..config()
    };
    let server = serve_with(limits, Store::new(Mode::AtOnce)).await;
    let mut stuck = Vec::new();
    for number in 0..STUCK {
        // QoS 0 is dropped for them, QoS 1 ends the connection of a client of MQTT 5.
        let mut reader = server.v5(&format!("stuck-{number}")).await;
        reader.subscribe_v5("load", u8::from(number == 0)).await;
        stuck.push(reader);
    }
    let mut awake = server.v311("awake").await;
    awake.subscribe_v311("load", 0).await;
    let mut device = server.v311("press").await;
    let payload = vec![7; PAYLOAD_BYTES];
    let mut slowest = Duration::ZERO;
    let mut most_bytes = 0.0_f64;
    // Far more than sockets and queues hold of it.
    for _ in 0..400 {
        let sent = Instant::now();
        device.send(publish_v311(1, 9, "load", &payload)).await;
        device.expect(&puback(9)).await;
        awake.expect(&publish_v311(0, 0, "load", &payload)).await;
        slowest = slowest.max(sent.elapsed());
        most_bytes = most_bytes.max(gauge("session_bytes"));
    }
    assert!(slowest < Duration::from_secs(1), "a message took {slowest:?}");
    let in_flight = usize::from(MAX_INFLIGHT) * 2 * PAYLOAD_BYTES;
    let bound = (STUCK + 1) * (MAX_QUEUED_BYTES + PAYLOAD_BYTES) + in_flight;
    assert!(
        most_bytes > PAYLOAD_BYTES as f64 && most_bytes < bound as f64,
        "{most_bytes} bytes, and {bound} are the bound"
    );
    assert!(by_reason("deliveries_dropped", "queue_full_qos0") > 100);
    assert_eq!(by_reason("connections_closed", "queue_full"), 1);
    let all_gone = async {
        while by_reason("connections_closed", "write_stalled") < STUCK as u64 - 1 {
            device.ping().await;
        }
    };
    tokio::time::timeout(SOON, all_gone)
        .await
        .expect("those who never read are closed");
    awake.ping().await;
}
