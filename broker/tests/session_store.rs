//! What sessions hold, of one and of all together, is bounded, and those who read go on.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::counted::by_reason;
use common::wire::{
    connect_v311, packet, puback, publish_v5, publish_v311, subscribe_v5, text, unsubscribe_v5,
};
use common::{Mode, Server, Store, Wire, config, counted, serve_with};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::SessionConfig;

async fn server(config: BrokerConfig) -> Server {
    counted::start();
    serve_with(config, Store::new(Mode::AtOnce)).await
}

async fn server_of(session: SessionConfig) -> Server {
    server(BrokerConfig { session, ..config() }).await
}

/// A client whose session outlives its connection, with a subscription to `t` of QoS 1, that has left.
async fn leave_reader(server: &Server, client_id: &str) {
    let mut reader = server.wire().await;
    reader.send(connect_v311(client_id, 0, 60)).await;
    reader.expect(&[0x20, 2, 0, 0]).await;
    reader.subscribe_v311("t", 1).await;
    reader.send([0xE0, 0]).await;
    reader.expect_end().await;
}

/// How many messages wait for the client, which acknowledges them and leaves again.
async fn messages_for(server: &Server, client_id: &str) -> usize {
    let mut reader = server.wire().await;
    reader.send(connect_v311(client_id, 0, 60)).await;
    reader.expect(&[0x20, 2, 1, 0]).await;
    reader.send([0xC0, 0]).await;
    let mut count = 0;
    loop {
        let packet = reader.packet().await;
        if packet[0] == 0xD0 {
            break;
        }
        count += 1;
        reader.send(puback(packet_id_of_t(&packet))).await;
    }
    reader.send([0xE0, 0]).await;
    reader.expect_end().await;
    count
}

/// Of a PUBLISH to `t`.
fn packet_id_of_t(publish: &[u8]) -> u16 {
    let header = 2 + publish[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
    u16::from_be_bytes([publish[header + 3], publish[header + 4]])
}

async fn publish_to_t(device: &mut Wire, payload: &[u8]) {
    device.send(publish_v311(1, 9, "t", payload)).await;
    device.expect(&puback(9)).await;
}

#[tokio::test]
async fn what_waits_for_one_session_is_bounded_in_bytes_properties_and_all() {
    let server = server_of(SessionConfig {
        max_queued_bytes: 10_000,
        ..SessionConfig::default()
    })
    .await;
    leave_reader(&server, "reader").await;
    let before = by_reason("deliveries_dropped", "queue_full");
    let mut device = server.v5("press").await;
    let long = [b'v'; 4000];
    let user = [&[38][..], &text("k"), &(long.len() as u16).to_be_bytes(), &long].concat();
    for id in 1..=10 {
        device.send(publish_v5(1, id, "t", &user, b"")).await;
        device.expect(&puback(id)).await;
    }
    assert!(by_reason("deliveries_dropped", "queue_full") >= before + 8);
    assert_eq!(messages_for(&server, "reader").await, 2);
}

#[tokio::test]
async fn what_all_sessions_hold_is_bounded_and_those_who_read_go_on() {
    let server = server_of(SessionConfig {
        max_total_bytes: 64 * 1024,
        ..SessionConfig::default()
    })
    .await;
    leave_reader(&server, "asleep").await;
    let mut awake = server.v311("awake").await;
    awake.subscribe_v311("t", 1).await;
    let mut device = server.v311("press").await;
    let before = by_reason("deliveries_dropped", "session_store_full");
    let payload = [b'x'; 8192];
    for id in 1..=10 {
        publish_to_t(&mut device, &payload).await;
        awake.expect(&publish_v311(1, id, "t", &payload)).await;
        awake.send(puback(id)).await;
        awake.ping().await;
    }
    let dropped = by_reason("deliveries_dropped", "session_store_full") - before;
    assert!(dropped >= 5, "{dropped} were dropped");
    // Three quarters of the bound, less the subscriptions.
    let kept = messages_for(&server, "asleep").await;
    assert!((4..=5).contains(&kept), "{kept} were kept");
    for id in 11..=13 {
        publish_to_t(&mut device, &payload).await;
        awake.expect(&publish_v311(1, id, "t", &payload)).await;
        awake.send(puback(id)).await;
        awake.ping().await;
    }
    assert_eq!(
        messages_for(&server, "asleep").await,
        3,
        "what was acknowledged has given its room back"
    );
}

#[tokio::test]
async fn a_subscription_over_what_all_sessions_may_hold_is_refused_until_another_goes() {
    let server = server_of(SessionConfig {
        max_total_bytes: 64 * 1024,
        ..SessionConfig::default()
    })
    .await;
    let before = by_reason("subscribes_refused", "session_store_full");
    let mut reader = server.v5("reader").await;
    let mut made = Vec::new();
    for id in 1..=200 {
        let filter = format!("machine/{id}");
        reader.send(subscribe_v5(id, &filter, 0, &[])).await;
        match reader.packet().await.last() {
            Some(0) => made.push(filter),
            code => assert_eq!(code, Some(&0x97)),
        }
    }
    assert!((10..100).contains(&made.len()), "{} were made", made.len());
    assert!(by_reason("subscribes_refused", "session_store_full") >= before + 100);
    reader.send(unsubscribe_v5(1, &made[0])).await;
    assert_eq!(reader.packet().await.last(), Some(&0));
    reader.send(subscribe_v5(2, "machine/x", 0, &[])).await;
    reader.expect(&[0x90, 4, 0, 2, 0, 0]).await;
    // The next one has all of it, once the first is gone.
    drop(reader);
    let mut next = server.v5("reader").await;
    next.subscribe_v5("machine/1", 0).await;
}

/// CONNECT of protocol `level` with a will.
fn connect_with_will(level: u8, client_id: &str, will: &[u8]) -> Vec<u8> {
    let props: &[u8] = if level == 5 { &[0] } else { &[] };
    let length = (will.len() as u16).to_be_bytes();
    let body = [
        b"\0\x04MQTT",
        &[level, 0x06, 0, 60][..],
        props,
        &text(client_id),
        props,
        &text("will"),
        &length,
        will,
    ];
    packet(0x10, &body)
}

#[tokio::test]
async fn a_will_over_what_all_sessions_may_hold_is_refused_with_its_connection() {
    let server = server_of(SessionConfig {
        max_total_bytes: 64 * 1024,
        ..SessionConfig::default()
    })
    .await;
    let before = by_reason("connects_refused", "session_store_full");
    let will = [b'w'; 50_000];
    let mut device = server.wire().await;
    device.send(connect_with_will(5, "press", &will)).await;
    assert_eq!(device.packet().await[3], 0x97);
    let mut device = server.wire().await;
    device.send(connect_with_will(4, "press", &will)).await;
    device.expect(&[0x20, 2, 0, 3]).await;
    assert_eq!(by_reason("connects_refused", "session_store_full"), before + 2);
    server.v5("press").await.ping().await;
}

#[tokio::test]
async fn a_will_that_waits_for_a_full_store_keeps_its_room_until_it_is_stored() {
    counted::start();
    let session = SessionConfig {
        max_total_bytes: 64 * 1024,
        ..SessionConfig::default()
    };
    let store = Store::new(Mode::Busy);
    let server = serve_with(BrokerConfig { session, ..config() }, store.clone()).await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("will", 0).await;
    let will = [b'w'; 20_000];
    let mut device = server.wire().await;
    device.send(connect_with_will(5, "press", &will)).await;
    assert_eq!(device.packet().await[3], 0);
    drop(device);
    store.until(|store| store.refused() > 0).await;
    let mut next = server.wire().await;
    next.send(connect_with_will(5, "lathe", &will)).await;
    assert_eq!(next.packet().await[3], 0x97);
    store.set_mode(Mode::AtOnce);
    reader.expect(&publish_v311(0, 0, "will", &will)).await;
    let mut next = server.wire().await;
    next.send(connect_with_will(5, "lathe", &will)).await;
    assert_eq!(next.packet().await[3], 0);
}
