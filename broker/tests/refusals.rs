//! What must not be accepted, and how it is refused. Each death of rumqttd's own listener and router has a test here.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::{Duration, Instant};

use common::wire::{
    connect_v5, connect_v311, packet, puback, publish_v5, publish_v311, subscribe_v5, subscribe_v311, text,
    unsubscribe_v5, unsubscribe_v311,
};
use common::{Mode, SOON, Server, Store, config, serve, serve_with};
use shopfloor_broker::BrokerConfig;
use tokio::io::AsyncWriteExt;

async fn server() -> Server {
    serve(Store::new(Mode::AtOnce)).await
}

/// The front still serves: a new client publishes to an old one.
async fn still_serves(server: &Server) {
    let mut reader = server.v311("witness-reader").await;
    reader.subscribe_v311("witness/#", 0).await;
    let mut writer = server.v5("witness-writer").await;
    writer
        .send(publish_v5(
            1,
            1,
            "witness/a",
            &[38, 0, 1, b'k', 0, 1, b'v'],
            b"alive",
        ))
        .await;
    writer.expect(&puback(1)).await;
    reader.expect(&publish_v311(0, 0, "witness/a", b"alive")).await;
}

#[tokio::test]
async fn a_topic_that_starts_with_a_non_ascii_character_is_delivered_and_kills_nothing() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("#", 0).await;
    let mut device = server.v311("press").await;
    for qos in [0, 1] {
        device.send(publish_v311(qos, 1, "über/maß", b"x")).await;
        reader.expect(&publish_v311(0, 0, "über/maß", b"x")).await;
    }
    drop(reader);
    still_serves(&server).await;
}

#[tokio::test]
async fn a_will_whose_topic_starts_with_a_non_ascii_character_is_delivered_and_kills_nothing() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("#", 0).await;
    let mut device = server.wire().await;
    let body = [
        b"\0\x04MQTT\x04\x06\0\x3C".as_slice(),
        &text("press"),
        &text("über"),
        &text("gone"),
    ];
    device.send(packet(0x10, &body)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    drop(device);
    reader.expect(&publish_v311(0, 0, "über", b"gone")).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn subscribers_that_disconnect_under_load_kill_nothing() {
    let server = server().await;
    let mut device = server.v311("press").await;
    let load = publish_v311(0, 0, "load/a", b"x").repeat(500);
    for round in 0..20 {
        let mut reader = server.v311(&format!("reader-{round}")).await;
        reader.subscribe_v311("load/#", 0).await;
        device.send(&load).await;
        reader.packet().await;
        reader.send([0xE0, 0]).await;
    }
    device.ping().await;
    still_serves(&server).await;
}

#[tokio::test]
async fn the_only_member_of_a_share_leaves_with_an_unacknowledged_message_and_finds_it_again() {
    let server = server().await;
    let mut reader = server.wire().await;
    reader.send(connect_v311("reader", 0, 60)).await;
    reader.expect(&[0x20, 2, 0, 0]).await;
    reader.subscribe_v311("$share/g/t", 1).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 1, "t", b"x")).await;
    device.expect(&puback(1)).await;
    reader.expect(&publish_v311(1, 1, "t", b"x")).await;
    drop(reader);
    still_serves(&server).await;
    let mut reader = server.wire().await;
    reader.send(connect_v311("reader", 0, 60)).await;
    reader.expect(&[0x20, 2, 1, 0]).await;
    reader
        .expect(&common::wire::publish(0x3A, 1, "t", None, b"x"))
        .await;
}

#[tokio::test]
async fn client_ids_with_slashes_and_wildcards_are_ordinary() {
    let server = server().await;
    for _ in 0..2 {
        for id in ["a/b", "a+b", "#", "$x", "über"] {
            server.v311(id).await.ping().await;
        }
    }
}

#[tokio::test]
async fn a_reset_before_connack_leaves_the_listener_accepting() {
    let server = server().await;
    for _ in 0..10 {
        let mut device = server.wire().await;
        device.send(connect_v311("same", 2, 60)).await;
        device.socket.set_zero_linger().unwrap();
        drop(device);
    }
    server.v311("same").await.ping().await;
}

#[tokio::test]
async fn a_client_that_found_every_place_taken_is_served_when_one_is_free() {
    let mut config = config();
    config.listeners[0].max_connections = 1;
    let server = serve_with(config, Store::new(Mode::AtOnce)).await;
    for _ in 0..3 {
        let mut first = server.v311("same").await;
        let mut second = server.wire().await;
        second.send(connect_v311("same", 2, 60)).await;
        first.ping().await;
        drop(first);
        second.expect(&[0x20, 2, 0, 0]).await;
        second.ping().await;
    }
}

#[tokio::test]
async fn packets_that_only_a_server_sends_end_that_connection_alone() {
    let server = server().await;
    for bytes in [
        &[0x20, 3, 0, 0, 0][..],
        &[0x90, 4, 0, 1, 0, 0],
        &[0xB0, 4, 0, 1, 0, 0],
        &[0xD0, 0],
    ] {
        let mut device = server.v5("rogue").await;
        device.send(bytes).await;
        assert_eq!(device.packet().await[2], 0x82);
        device.expect_end().await;
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn silent_connections_delay_nobody_and_end_at_their_deadline() {
    let config = BrokerConfig {
        connect_timeout_ms: 300,
        ..config()
    };
    let server = serve_with(config, Store::new(Mode::AtOnce)).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(server.wire().await);
    }
    silent[0].send([0x10]).await;
    server.v311("press").await.ping().await;
    for mut connection in silent {
        connection.expect_end().await;
    }
}

#[tokio::test]
async fn v5_properties_never_reach_a_v311_subscriber() {
    let server = server().await;
    for filter in ["t/#", "t/a"] {
        let mut reader = server.v311("reader").await;
        reader.subscribe_v311(filter, 1).await;
        let mut device = server.v5("press").await;
        for qos in [0, 1] {
            device
                .send(publish_v5(
                    qos,
                    1,
                    "t/a",
                    &[1, 1, 38, 0, 1, b'k', 0, 1, b'v'],
                    b"x",
                ))
                .await;
            reader.expect(&publish_v311(qos, 1, "t/a", b"x")).await;
        }
    }
}

#[tokio::test]
async fn wildcards_in_a_topic_name_end_the_connection() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    for topic in ["a/#", "+", "a+"] {
        let mut old = server.v311("old").await;
        old.send(publish_v311(1, 1, topic, b"x")).await;
        old.expect_end().await;
        let mut new = server.v5("new").await;
        new.send(publish_v5(1, 1, topic, &[], b"x")).await;
        assert_eq!(new.packet().await[2], 0x81);
        new.expect_end().await;
    }
    assert!(store.messages().is_empty());
}

#[tokio::test]
async fn invalid_filters_end_the_connection() {
    let server = server().await;
    for filter in ["", "a#", "#/a", "a/+b", "$share/g", "$share//a", "$share/+/a"] {
        let mut old = server.v311("old").await;
        old.send(subscribe_v311(1, filter, 0)).await;
        old.expect_end().await;
        let mut new = server.v5("new").await;
        new.send(subscribe_v5(1, filter, 0, &[])).await;
        assert_eq!(new.packet().await[2], 0x81, "{filter}");
    }
}

#[tokio::test]
async fn an_unsubscribe_of_an_unknown_filter_is_answered() {
    let server = server().await;
    let mut old = server.v311("old").await;
    old.send(unsubscribe_v311(5, "never")).await;
    old.expect(&[0xB0, 2, 0, 5]).await;
    let mut new = server.v5("new").await;
    new.send(unsubscribe_v5(5, "never")).await;
    new.expect(&[0xB0, 4, 0, 5, 0, 0x11]).await;
}

#[tokio::test]
async fn keep_alive_zero_is_allowed() {
    let server = server().await;
    let mut device = server.wire().await;
    device.send(connect_v311("press", 2, 0)).await;
    device.expect(&[0x20, 2, 0, 0]).await;
    device.ping().await;
}

#[tokio::test]
async fn a_client_that_only_receives_is_held_to_its_keep_alive() {
    let server = server().await;
    let mut reader = server.wire().await;
    reader
        .send(packet(0x10, &[b"\0\x04MQTT\x05\x02\0\x01\0", &text("reader")]))
        .await;
    reader.packet().await;
    reader.subscribe_v5("t", 0).await;
    let mut device = server.v311("press").await;
    let started = Instant::now();
    let closed = async {
        loop {
            device.send(publish_v311(0, 0, "t", b"x")).await;
            match reader.packet().await {
                packet if packet[0] == 0xE0 => return packet,
                _message => device.ping().await,
            }
        }
    };
    let packet = tokio::time::timeout(SOON, closed).await.unwrap();
    assert_eq!(packet[2], 0x8D);
    assert!(started.elapsed() >= Duration::from_millis(1_400));
}

#[tokio::test]
async fn acknowledgements_of_a_subscriber_may_come_in_any_order_and_twice() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("t", 1).await;
    let mut device = server.v311("press").await;
    for id in 1..=3 {
        device.send(publish_v311(1, id, "t", b"x")).await;
        reader.expect(&publish_v311(1, id, "t", b"x")).await;
    }
    for id in [3, 1, 2, 2, 77] {
        reader.send(puback(id)).await;
    }
    reader.ping().await;
}

#[tokio::test]
async fn other_protocols_and_versions_are_told_or_dropped() {
    let server = server().await;
    for level in [3, 6] {
        let mut device = server.wire().await;
        device
            .send(packet(0x10, &[b"\0\x04MQTT", &[level, 2, 0, 60], &text("x")]))
            .await;
        device.expect(&[0x20, 2, 0, 1]).await;
        device.expect_end().await;
    }
    let mut ancient = server.wire().await;
    ancient
        .send(packet(0x10, &[b"\0\x06MQIsdp\x03\x02\0\x3C", &text("x")]))
        .await;
    ancient.expect(&[0x20, 2, 0, 1]).await;
    for stranger in [
        "GET / HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    ] {
        let mut stranger_wire = server.wire().await;
        stranger_wire.send(stranger).await;
        stranger_wire.expect_end().await;
    }
}

#[tokio::test]
async fn a_second_connect_and_an_auth_end_the_connection() {
    let server = server().await;
    let mut twice = server.v5("twice").await;
    twice.send(connect_v5("twice", 2, &[])).await;
    assert_eq!(twice.packet().await[2], 0x82);
    twice.expect_end().await;
    let mut auth = server.v5("auth").await;
    auth.send([0xF0, 0]).await;
    assert_eq!(auth.packet().await[2], 0x82);
    let mut enhanced = server.wire().await;
    enhanced
        .send(connect_v5(
            "enhanced",
            2,
            &[21, 0, 5, b'S', b'C', b'R', b'A', b'M'],
        ))
        .await;
    assert_eq!(enhanced.packet().await[3], 0x8C);
    enhanced.expect_end().await;
}

#[tokio::test]
async fn garbage_on_many_connections_ends_them_and_nothing_else() {
    let server = server().await;
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    for round in 0..200 {
        let mut device = if round % 2 == 0 {
            server.v311("rogue").await
        } else {
            server.v5("rogue").await
        };
        let garbage = (0..64).map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_be_bytes()[0]
        });
        let garbage = garbage.collect::<Vec<_>>();
        let _reset = device.socket.write_all(&garbage).await;
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn the_reason_arrives_although_the_client_was_still_sending() {
    let config = BrokerConfig {
        max_packet_bytes: 1024,
        ..config()
    };
    let server = serve_with(config, Store::new(Mode::AtOnce)).await;
    let mut device = server.v5("press").await;
    device.send(publish_v5(1, 1, "t", &[], &vec![7; 200_000])).await;
    assert_eq!(device.packet().await[2], 0x95);
    device.expect_end().await;
}

#[tokio::test]
async fn a_panic_ends_its_connection_alone_and_frees_its_session() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut bystander = server.v311("bystander").await;
    let (mut old, mut new) = (server.v311("old").await, server.v5("new").await);
    store.set_mode(Mode::Panic);
    old.send(publish_v311(1, 1, "t", b"x")).await;
    old.expect_end().await;
    new.send(publish_v5(1, 1, "t", &[], b"x")).await;
    assert_eq!(new.packet().await[2], 0x80);
    new.expect_end().await;
    store.set_mode(Mode::AtOnce);
    bystander.ping().await;
    still_serves(&server).await;
    let mut again = server.v311("old").await;
    again.send(publish_v311(1, 1, "t", b"again")).await;
    again.expect(&puback(1)).await;
}
