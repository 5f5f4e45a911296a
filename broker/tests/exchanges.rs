//! QoS 2 from a publisher: one reception a message, over reconnects, and the identifiers that are left open.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;

use common::counted::by_reason;
use common::wire::{connect_v5, connect_v311, pubcomp, publish, publish_v5, publish_v311, pubrec, pubrel};
use common::{Mode, Server, Store, Wire, config, counted, serve, serve_with};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::{RefusedPublish, SessionConfig};

#[tokio::test]
async fn a_repeated_qos_2_publish_is_stored_once_also_over_a_reconnect() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    device.send(publish_v311(2, 9, "t", b"once")).await;
    device.expect(&pubrec(9)).await;
    device.send(publish(0x3C, 9, "t", None, b"once")).await;
    device.expect(&pubrec(9)).await;
    drop(device);
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 1, 0]).await;
    device.send(publish(0x3C, 9, "t", None, b"once")).await;
    device.expect(&pubrec(9)).await;
    device.send(pubrel(9)).await;
    device.expect(&pubcomp(9)).await;
    assert_eq!(store.payloads(), ["once"]);
    device.send(publish_v311(2, 9, "t", b"another")).await;
    device.expect(&pubrec(9)).await;
    assert_eq!(store.payloads(), ["once", "another"]);
}

#[tokio::test]
async fn a_repeated_qos_2_publish_reaches_subscribers_once_and_its_release_may_come_after_a_reconnect() {
    let server = serve(Store::new(Mode::AtOnce)).await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("t", 0).await;
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    device.send(publish_v311(2, 9, "t", b"once")).await;
    device.expect(&pubrec(9)).await;
    device.send(publish(0x3C, 9, "t", None, b"once")).await;
    device.expect(&pubrec(9)).await;
    drop(device);
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 1, 0]).await;
    device.send(pubrel(9)).await;
    device.expect(&pubcomp(9)).await;
    reader.expect(&publish_v311(0, 0, "t", b"once")).await;
    reader.ping().await;
}

/// The client of a session that was left with `once` under the identifier 9, unreleased.
async fn returned(store: &Arc<Store>) -> (Server, Wire) {
    let server = serve(store.clone()).await;
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    device.send(publish_v311(2, 9, "t", b"once")).await;
    store.until(|store| !store.payloads().is_empty()).await;
    drop(device);
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 1, 0]).await;
    (server, device)
}

#[tokio::test]
async fn a_new_message_under_an_identifier_that_stayed_open_is_stored_and_its_resend_is_not() {
    // Without DUP it is new even with the same content. With DUP it is new where topic or payload differ.
    let news: [(u8, &str, &[u8]); 4] = [
        (0x34, "t", b"new"),
        (0x34, "t", b"once"),
        (0x3C, "t", b"new"),
        (0x3C, "t/once", b""),
    ];
    for (first, topic, payload) in news {
        let store = Store::new(Mode::AtOnce);
        let (_server, mut device) = returned(&store).await;
        device.send(publish(first, 9, topic, None, payload)).await;
        device.expect(&pubrec(9)).await;
        device.send(publish(0x3C, 9, topic, None, payload)).await;
        device.expect(&pubrec(9)).await;
        device.send(pubrel(9)).await;
        device.expect(&pubcomp(9)).await;
        let text = String::from_utf8(payload.to_vec()).unwrap();
        assert_eq!(store.payloads(), ["once".to_owned(), text]);
    }
}

#[tokio::test]
async fn a_new_message_under_an_identifier_whose_message_is_still_with_the_store_waits_for_its_own_receipt() {
    let store = Store::new(Mode::Hold);
    let (server, mut device) = returned(&store).await;
    // The store has no room: the new message, of the same content, is only waiting when its connection ends.
    store.set_mode(Mode::Busy);
    device.send(publish_v311(2, 9, "t", b"once")).await;
    store.until(|store| store.refused() > 0).await;
    store.release(1);
    device.ping().await;
    drop(device);
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 1, 0]).await;
    store.set_mode(Mode::AtOnce);
    device.send(publish(0x3C, 9, "t", None, b"once")).await;
    device.expect(&pubrec(9)).await;
    assert_eq!(store.payloads(), ["once", "once"]);
}

#[tokio::test]
async fn an_identifier_that_one_connection_uses_twice_stands_for_two_messages() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    for (count, payload) in (1..).zip([b"a", b"b"]) {
        device.send(publish_v311(2, 5, "t", payload)).await;
        store.until(|store| store.held() == count).await;
    }
    // The resend of the second is the second, which has no receipt yet.
    store.release(1);
    device.expect(&pubrec(5)).await;
    device.send(publish(0x3C, 5, "t", None, b"b")).await;
    device.ping().await;
    store.release(1);
    device.expect(&pubrec(5)).await;
    assert_eq!(store.payloads(), ["a", "b"]);
}

#[tokio::test]
async fn a_qos_2_publish_that_was_not_stored_is_stored_when_it_is_repeated() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    device.send(publish_v311(2, 9, "t", b"a")).await;
    store.until(|store| store.held() == 1).await;
    store.lose();
    device.expect_end().await;
    store.set_mode(Mode::AtOnce);
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0x00, 60)).await;
    device.expect(&[0x20, 2, 1, 0]).await;
    device.send(publish(0x3C, 9, "t", None, b"a")).await;
    device.expect(&pubrec(9)).await;
    assert_eq!(store.payloads(), ["a", "a"]);
}

#[tokio::test]
async fn a_qos2_publish_whose_connection_ended_before_its_receipt_is_stored_once() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0, 60)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    device
        .send([publish_v311(1, 7, "t", b"a"), publish_v311(2, 5, "t", b"b")].concat())
        .await;
    store.until(|store| store.held() == 1).await;
    drop(device);
    // The server gives the session free although the store is silent.
    let mut device = server.wire().await;
    device.send(connect_v311("press", 0, 60)).await;
    device.expect(&[0x20, 2, 1, 0]).await;
    device.send(publish(0x3C, 5, "t", None, b"b")).await;
    device.ping().await;
    store.release(1);
    // Not PUBACK: to this connection the identifier 7 may mean another message.
    device.expect(&pubrec(5)).await;
    device.send(pubrel(5)).await;
    device.expect(&pubcomp(5)).await;
    assert_eq!(store.payloads(), ["a", "b"]);
}

#[tokio::test]
async fn a_release_before_its_publish_was_answered_leaves_nothing_open() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    device
        .send([publish_v311(2, 5, "t", b"a"), pubrel(5)].concat())
        .await;
    store.until(|store| store.held() == 1).await;
    store.release(1);
    device.expect(&pubrec(5)).await;
    device.expect(&pubcomp(5)).await;
    device.send(publish_v311(2, 5, "t", b"b")).await;
    store.until(|store| store.held() == 1).await;
    assert_eq!(store.payloads(), ["a", "b"]);
}

#[tokio::test]
async fn over_the_receive_maximum_mqtt5_is_disconnected_with_the_reason() {
    let store = Store::new(Mode::Hold);
    let server = serve_with(
        BrokerConfig {
            receive_maximum: 2,
            ..config()
        },
        store.clone(),
    )
    .await;
    let mut device: Wire = server.v5("press").await;
    for id in 1..=3 {
        device.send(publish_v5(1, id, "t", &[], b"a")).await;
    }
    assert_eq!(device.packet().await[2], 0x93);
    device.expect_end().await;
}

#[tokio::test]
async fn a_place_that_is_freed_too_late_saves_no_publish_over_the_receive_maximum() {
    let limits = BrokerConfig {
        receive_maximum: 2,
        ..config()
    };
    let server = serve_with(limits, Store::new(Mode::AtOnce)).await;
    let mut device = server.v5("press").await;
    // One write, so that one read brings the third publish and the releases behind it.
    let mut burst = (1..=3)
        .flat_map(|id| publish_v5(2, id, "t", &[], b"a"))
        .collect::<Vec<_>>();
    burst.extend((1..=3).flat_map(pubrel));
    device.send(burst).await;
    let told = device.packet().await;
    assert_eq!((told[0], told[2]), (0xE0, 0x93), "{told:02x?}");
    device.expect_end().await;
}

async fn server(config: BrokerConfig) -> Server {
    counted::start();
    serve_with(config, Store::new(Mode::AtOnce)).await
}

/// An MQTT 5 client with a session that outlives its connection.
async fn connect_kept(server: &Server, present: bool) -> Wire {
    let mut device = server.wire().await;
    device.send(connect_v5("press", 0, &[17, 0, 0, 0, 100])).await;
    let connack = device.packet().await;
    assert_eq!((connack[2], connack[3]), (u8::from(present), 0));
    device
}

#[tokio::test]
async fn identifiers_that_earlier_connections_left_open_do_not_count_against_the_receive_maximum() {
    let session = SessionConfig {
        max_unreleased: 8,
        ..SessionConfig::default()
    };
    let server = server(BrokerConfig {
        receive_maximum: 3,
        session,
        ..config()
    })
    .await;
    let before = by_reason("publishes_refused", "too_many_unreleased");
    for (connection, ids) in [(0, 1..=3), (1, 4..=6), (2, 7..=8)] {
        let mut device = connect_kept(&server, connection > 0).await;
        for id in ids {
            device.send(publish_v5(2, id, "t", &[], b"x")).await;
            device.expect(&pubrec(id)).await;
        }
        device.ping().await;
    }
    let mut device = connect_kept(&server, true).await;
    device.send(publish_v5(2, 9, "t", &[], b"x")).await;
    device.expect(&[0x50, 3, 0, 9, 0x97]).await;
    assert_eq!(by_reason("publishes_refused", "too_many_unreleased"), before + 1);
    // One of them is known as ever, and released it makes room.
    device.send(publish(0x3C, 1, "t", Some(&[]), b"x")).await;
    device.expect(&pubrec(1)).await;
    device.send(pubrel(1)).await;
    device.expect(&pubcomp(1)).await;
    device.send(publish_v5(2, 9, "t", &[], b"x")).await;
    device.expect(&pubrec(9)).await;
    // Those sent again here count: with the ninth they are three, and the next is one too many.
    for id in [2, 3] {
        device.send(publish(0x3C, id, "t", Some(&[]), b"x")).await;
        device.expect(&pubrec(id)).await;
    }
    device.send(publish(0x3C, 4, "t", Some(&[]), b"x")).await;
    let told = device.packet().await;
    assert_eq!((told[0], told[2]), (0xE0, 0x93), "{told:02x?}");
}

#[tokio::test]
async fn an_identifier_too_many_ends_a_311_connection_rather_than_be_acknowledged_and_lost() {
    counted::start();
    let store = Store::new(Mode::AtOnce);
    let session = SessionConfig {
        max_unreleased: 2,
        ..SessionConfig::default()
    };
    let mut limits = BrokerConfig { session, ..config() };
    // What the rules refuse may be acknowledged and dropped; this may not.
    limits.acl.refused_publish_v311 = RefusedPublish::Acknowledge;
    let server = serve_with(limits, store.clone()).await;
    let mut device = server.v311("press").await;
    for id in 1..=2 {
        device.send(publish_v311(2, id, "t", b"x")).await;
        device.expect(&pubrec(id)).await;
    }
    device.send(publish_v311(2, 3, "t", b"y")).await;
    device.expect_end().await;
    assert_eq!(store.payloads(), ["x", "x"]);
}
