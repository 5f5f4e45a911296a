//! Sessions that outlive connections, wills, takeovers.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::wire::{
    connect_v5, connect_v311, packet, properties, puback, pubcomp, publish, publish_v5, publish_v311, pubrec,
    pubrel, text,
};
use common::{Mode, SOON, Server, Store, Wire, serve};

async fn server() -> Server {
    serve(Store::new(Mode::AtOnce)).await
}

/// Connects without a clean session; `present` is what CONNACK must say.
async fn resume_v311(server: &Server, client_id: &str, present: bool) -> Wire {
    let mut wire = server.wire().await;
    wire.send(connect_v311(client_id, 0, 60)).await;
    wire.expect(&[0x20, 2, u8::from(present), 0]).await;
    wire
}

async fn connect_v5_with(server: &Server, client_id: &str, clean: bool, expiry_s: u32) -> (Wire, bool) {
    let mut wire = server.wire().await;
    let expiry = [&[17][..], &expiry_s.to_be_bytes()].concat();
    wire.send(connect_v5(client_id, if clean { 2 } else { 0 }, &expiry))
        .await;
    let connack = wire.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    (wire, connack[2] == 1)
}

async fn publish_and_wait(server: &Server, qos: u8, topic: &str, payload: &[u8]) {
    let mut device = server.v311("press").await;
    device.send(publish_v311(qos, 9, topic, payload)).await;
    if qos == 1 {
        device.expect(&puback(9)).await;
    }
    device.ping().await;
}

/// A CONNECT with a will on `will`.
fn connect_with_will(level: u8, client_id: &str, flags: u8, props: &[u8], will_props: &[u8]) -> Vec<u8> {
    let (props, will_props) = if level == 5 {
        (properties(props), properties(will_props))
    } else {
        (Vec::new(), Vec::new())
    };
    let body = [
        b"\0\x04MQTT".as_slice(),
        &[level, flags | 0x04, 0, 60],
        &props,
        &text(client_id),
        &will_props,
        &text("will"),
        &text("gone"),
    ];
    packet(0x10, &body)
}

#[tokio::test]
async fn a_kept_session_has_its_subscriptions_and_what_was_published_meanwhile() {
    let server = server().await;
    let mut reader = resume_v311(&server, "reader", false).await;
    reader.subscribe_v311("t", 2).await;
    reader.send([0xE0, 0]).await;
    reader.expect_end().await;
    publish_and_wait(&server, 0, "t", b"not kept").await;
    publish_and_wait(&server, 1, "t", b"kept").await;
    let mut reader = resume_v311(&server, "reader", true).await;
    reader.expect(&publish_v311(1, 1, "t", b"kept")).await;
    reader.send(puback(1)).await;
    publish_and_wait(&server, 0, "t", b"live").await;
    reader.expect(&publish_v311(0, 0, "t", b"live")).await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_dup_and_in_order() {
    let server = server().await;
    let mut reader = resume_v311(&server, "reader", false).await;
    reader.subscribe_v311("t", 2).await;
    let mut device = server.v311("device").await;
    device
        .send(
            [
                publish_v311(1, 1, "t", b"1"),
                publish_v311(2, 2, "t", b"2"),
                publish_v311(2, 3, "t", b"3"),
            ]
            .concat(),
        )
        .await;
    for (qos, id, payload) in [(1, 1, b"1"), (2, 2, b"2"), (2, 3, b"3")] {
        reader.expect(&publish_v311(qos, id, "t", payload)).await;
    }
    reader.send(pubrec(2)).await;
    reader.expect(&pubrel(2)).await;
    drop(reader);
    let mut reader = resume_v311(&server, "reader", true).await;
    reader.expect(&publish(0x3A, 1, "t", None, b"1")).await;
    reader.expect(&pubrel(2)).await;
    reader.expect(&publish(0x3C, 3, "t", None, b"3")).await;
    reader.send([puback(1), pubcomp(2), pubrec(3)].concat()).await;
    reader.expect(&pubrel(3)).await;
    reader.send(pubcomp(3)).await;
    reader.ping().await;
    drop(reader);
    resume_v311(&server, "reader", true).await.ping().await;
}

#[tokio::test]
async fn a_clean_session_forgets_everything() {
    let server = server().await;
    let mut reader = resume_v311(&server, "reader", false).await;
    reader.subscribe_v311("t", 1).await;
    drop(reader);
    publish_and_wait(&server, 1, "t", b"x").await;
    server.v311("reader").await.ping().await;
    let mut reader = resume_v311(&server, "reader", false).await;
    publish_and_wait(&server, 1, "t", b"x").await;
    reader.ping().await;
}

#[tokio::test]
async fn an_mqtt5_session_lives_as_long_as_its_expiry() {
    let server = server().await;
    let (wire, present) = connect_v5_with(&server, "short", true, 0).await;
    assert!(!present);
    drop(wire);
    assert!(
        !connect_v5_with(&server, "short", false, 0).await.1,
        "expiry 0 ends with the connection"
    );
    drop(connect_v5_with(&server, "long", true, 100).await);
    assert!(connect_v5_with(&server, "long", false, 100).await.1);
    drop(connect_v5_with(&server, "second", true, 1).await);
    let gone = async {
        while server.front.sessions() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone)
        .await
        .expect("a session outlived its expiry");
    assert!(connect_v5_with(&server, "long", false, 100).await.1);
    assert!(!connect_v5_with(&server, "second", false, 1).await.1);
}

#[tokio::test]
async fn disconnect_may_change_the_expiry_but_not_raise_it_from_none() {
    let server = server().await;
    let (mut wire, _) = connect_v5_with(&server, "ends", true, 100).await;
    wire.send([0xE0, 7, 0, 5, 17, 0, 0, 0, 0]).await;
    wire.expect_end().await;
    assert!(!connect_v5_with(&server, "ends", false, 0).await.1);
    let (mut wire, _) = connect_v5_with(&server, "none", true, 0).await;
    wire.send([0xE0, 7, 0, 5, 17, 0, 0, 0, 9]).await;
    assert_eq!(wire.packet().await[2], 0x82);
}

#[tokio::test]
async fn a_second_connection_with_the_same_id_takes_the_session_over() {
    let server = server().await;
    let (mut first, _) = connect_v5_with(&server, "same", true, 100).await;
    first.subscribe_v5("t", 1).await;
    let (mut second, present) = connect_v5_with(&server, "same", false, 100).await;
    assert!(present);
    first.expect(&[0xE0, 1, 0x8E]).await;
    first.expect_end().await;
    publish_and_wait(&server, 1, "t", b"x").await;
    second.expect(&publish_v5(1, 1, "t", &[], b"x")).await;
    let mut old = server.v311("old").await;
    let _new = server.v311("old").await;
    old.expect_end().await;
}

#[tokio::test]
async fn many_connections_with_one_id_leave_one_alive() {
    let server = server().await;
    let mut attempts = Vec::new();
    for _ in 0..30 {
        let mut wire = server.wire().await;
        wire.send(connect_v311("same", 0, 60)).await;
        attempts.push(wire);
    }
    let mut last = resume_v311(&server, "same", true).await;
    last.ping().await;
    for mut wire in attempts {
        while wire.try_packet().await.is_some() {}
    }
    last.ping().await;
    assert_eq!(server.front.sessions(), 1);
}

#[tokio::test]
async fn a_will_is_stored_and_delivered_when_the_device_vanishes_and_not_when_it_leaves() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("will", 1).await;
    for level in [4, 5] {
        let mut polite = server.wire().await;
        polite
            .send(connect_with_will(level, "polite", 0x02, &[], &[]))
            .await;
        polite.packet().await;
        polite.send([0xE0, 0]).await;
        polite.expect_end().await;
        let mut device = server.wire().await;
        device
            .send(connect_with_will(level, "press", 0x0A, &[], &[]))
            .await;
        device.packet().await;
        drop(device);
        reader
            .expect(&publish_v311(1, u16::from(level) - 3, "will", b"gone"))
            .await;
    }
    let mut device = server.wire().await;
    device.send(connect_with_will(5, "press", 0x02, &[], &[])).await;
    device.packet().await;
    device.send([0xE0, 1, 0x04]).await;
    reader.expect(&publish_v311(0, 0, "will", b"gone")).await;
    assert_eq!(store.payloads(), ["gone"; 3]);
    assert_eq!(store.messages()[0].publisher.client_id, "press");
}

#[tokio::test]
async fn a_retained_will_is_found_later() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("will", 0).await;
    let mut device = server.wire().await;
    device.send(connect_with_will(4, "press", 0x22, &[], &[])).await;
    device.packet().await;
    drop(device);
    reader.expect(&publish_v311(0, 0, "will", b"gone")).await;
    reader.subscribe_v311("will", 0).await;
    reader.expect(&publish(0x31, 0, "will", None, b"gone")).await;
}

#[tokio::test]
async fn a_delayed_will_is_not_published_when_the_device_is_back_in_time() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let expiry = [17, 0, 0, 0, 100];
    let mut device = server.wire().await;
    device
        .send(connect_with_will(5, "press", 0x02, &expiry, &[24, 0, 0, 0, 1]))
        .await;
    device.packet().await;
    drop(device);
    let (back, present) = connect_v5_with(&server, "press", false, 0).await;
    assert!(present);
    drop(back);
    // The next one is published after its delay; the first one never was.
    let mut device = server.wire().await;
    device
        .send(connect_with_will(5, "other", 0x02, &expiry, &[24, 0, 0, 0, 1]))
        .await;
    device.packet().await;
    drop(device);
    store.until(|store| !store.messages().is_empty()).await;
    let clients = store
        .messages()
        .iter()
        .map(|m| m.publisher.client_id.clone())
        .collect::<Vec<_>>();
    assert_eq!(clients, ["other"]);
}

#[tokio::test]
async fn a_will_comes_at_the_latest_with_the_end_of_the_session() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut device = server.wire().await;
    device
        .send(connect_with_will(
            5,
            "press",
            0x02,
            &[17, 0, 0, 0, 100],
            &[24, 0, 0, 0, 90],
        ))
        .await;
    device.packet().await;
    drop(device);
    let (_new, present) = connect_v5_with(&server, "press", true, 0).await;
    assert!(!present, "a clean start ends the old session");
    store.until(|store| store.payloads() == ["gone"]).await;
}

#[tokio::test]
async fn a_hundred_wills_at_once_all_come_and_hold_up_nobody() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("will", 0).await;
    let mut devices = Vec::new();
    for number in 0..100 {
        let mut device = server.wire().await;
        let connect = connect_with_will(4, &format!("press-{number}"), 0x02, &[], &[]);
        device.send(connect).await;
        device.packet().await;
        devices.push(device);
    }
    drop(devices);
    publish_and_wait(&server, 1, "t", b"x").await;
    for _ in 0..100 {
        reader.expect(&publish_v311(0, 0, "will", b"gone")).await;
    }
    reader.ping().await;
}

#[tokio::test]
async fn a_client_without_an_id_gets_one() {
    let server = server().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut wire = server.wire().await;
        wire.send(connect_v5("", 2, &[])).await;
        let connack = wire.packet().await;
        let at = connack
            .windows(6)
            .position(|window| window[0] == 18 && &window[3..6] == b"aut")
            .unwrap();
        ids.push(connack[at..].to_vec());
    }
    assert_ne!(ids[0], ids[1]);
    server.v311("").await.ping().await;
    let mut kept = server.wire().await;
    kept.send(connect_v311("", 0, 60)).await;
    kept.expect(&[0x20, 2, 0, 2]).await;
    kept.expect_end().await;
}

#[tokio::test]
async fn a_longer_keep_alive_than_allowed_is_told_to_mqtt5() {
    let server = server().await;
    let mut wire = server.wire().await;
    wire.send(packet(0x10, &[b"\0\x04MQTT\x05\x02\0\x78\0", &text("press")]))
        .await;
    let connack = wire.packet().await;
    assert!(
        connack.windows(3).any(|window| window == [19, 0, 60]),
        "{connack:02x?}"
    );
}

#[tokio::test]
async fn a_slow_reader_of_qos_1_gets_every_message_in_order() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("t", 1).await;
    let mut device = server.v311("press").await;
    let count = 5_000_u16;
    for batch in 0..count / 500 {
        let ids = batch * 500 + 1..=(batch + 1) * 500;
        let publishes = ids
            .clone()
            .flat_map(|id| publish_v311(1, id, "t", &id.to_be_bytes()));
        device.send(publishes.collect::<Vec<_>>()).await;
        for id in ids {
            device.expect(&puback(id)).await;
        }
    }
    for number in 1..=count {
        let packet = reader.packet().await;
        assert_eq!(packet[packet.len() - 2..], number.to_be_bytes());
        let id = u16::from_be_bytes([packet[5], packet[6]]);
        reader.send(puback(id)).await;
    }
}
