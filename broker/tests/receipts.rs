//! The promise: acknowledged only when stored, in order, whatever the store does.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::wire::{connect_v5, puback, publish, publish_v5, publish_v311, pubrec, subscribe_v311};
use common::{Mode, Store, config, serve, serve_with};
use shopfloor_broker::BrokerConfig;

#[tokio::test]
async fn a_publish_is_acknowledged_only_after_its_receipt() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 7, "supply-chain", b"{}")).await;
    store.until(|store| store.held() == 1).await;
    device.ping().await;
    store.release(1);
    device.expect(&puback(7)).await;
    let message = &store.messages()[0];
    assert_eq!(
        (message.topic.as_str(), &message.payload[..], message.qos),
        ("supply-chain", &b"{}"[..], 1)
    );
    assert_eq!(
        (message.publisher.client_id.as_str(), message.publisher.v5),
        ("press", false)
    );
    assert_eq!(message.publisher.address.to_string(), "127.0.0.1");
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_the_publishes_when_receipts_come_out_of_order() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    for id in 1..=3 {
        device.send(publish_v311(1, id, "t", b"x")).await;
        store.until(|store| store.held() == usize::from(id)).await;
    }
    store.release_at(2);
    store.release_at(1);
    device.ping().await;
    store.release(1);
    for id in 1..=3 {
        device.expect(&puback(id)).await;
    }
}

#[tokio::test]
async fn packets_of_one_write_become_one_batch_in_their_order() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    let write = [
        publish_v311(0, 0, "t", b"a"),
        publish_v311(1, 1, "t", b"b"),
        publish_v311(2, 2, "t", b"c"),
        publish_v311(1, 3, "t", b"d"),
    ];
    device.send(write.concat()).await;
    store.until(|store| store.held() == 1).await;
    assert_eq!(store.payloads(), ["a", "b", "c", "d"]);
    store.release(1);
    device.expect(&puback(1)).await;
    device.expect(&pubrec(2)).await;
    device.expect(&puback(3)).await;
}

#[tokio::test]
async fn a_busy_store_delays_publishes_but_no_ping_and_loses_nothing() {
    let store = Store::new(Mode::Busy);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    device
        .send(
            [
                publish_v311(1, 1, "t", b"a"),
                vec![0xC0, 0],
                publish_v311(1, 2, "t", b"b"),
            ]
            .concat(),
        )
        .await;
    device.expect(&[0xD0, 0]).await;
    store.until(|store| store.refused() > 0).await;
    device.send(publish_v311(1, 3, "t", b"c")).await;
    device.ping().await;
    store.set_mode(Mode::AtOnce);
    for id in 1..=3 {
        device.expect(&puback(id)).await;
    }
    assert_eq!(store.payloads(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_busy_store_bounds_what_is_read_from_one_device() {
    let store = Store::new(Mode::Busy);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    let flood = publish_v311(0, 0, "t", &[7; 60_000]).repeat(1000);
    let sent = tokio::time::timeout(std::time::Duration::from_secs(1), device.send(flood)).await;
    assert!(sent.is_err(), "60 MB were taken while the store had no room");
}

#[tokio::test]
async fn what_was_not_stored_is_never_acknowledged_and_the_connection_ends() {
    for v5 in [false, true] {
        let store = Store::new(Mode::Hold);
        let server = serve(store.clone()).await;
        let mut device = if v5 {
            server.v5("press").await
        } else {
            server.v311("press").await
        };
        let publish = if v5 {
            publish_v5(1, 1, "t", &[], b"a")
        } else {
            publish_v311(1, 1, "t", b"a")
        };
        device.send(publish).await;
        store.until(|store| store.held() == 1).await;
        store.lose();
        if v5 {
            device.expect(&[0xE0, 1, 0x80]).await;
        }
        device.expect_end().await;
    }
}

#[tokio::test]
async fn a_closed_store_ends_the_connection_without_an_acknowledgement() {
    let server = serve(Store::new(Mode::Closed)).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 1, "t", b"a")).await;
    device.expect_end().await;
}

#[tokio::test]
async fn a_dead_letter_is_a_normal_puback_for_v311_and_a_reason_for_v5() {
    let store = Store::new(Mode::AtOnce);
    store.dead_letter("partId: missing");
    let server = serve(store.clone()).await;
    let mut old = server.v311("old").await;
    old.send(publish_v311(1, 1, "t", b"a")).await;
    old.expect(&puback(1)).await;
    let mut new = server.v5("new").await;
    new.send(publish_v5(1, 2, "t", &[], b"a")).await;
    let expected = [&[0x40, 22, 0, 2, 0x99, 18, 31, 0, 15][..], b"partId: missing"].concat();
    new.expect(&expected).await;
    // QoS 2 ends with that PUBREC: the identifier is free, the same one again is a new message.
    for _ in 0..2 {
        new.send(publish_v5(2, 3, "t", &[], b"b")).await;
        assert_eq!(new.packet().await[4], 0x99);
    }
    assert_eq!(store.payloads(), ["a", "a", "b", "b"]);
}

#[tokio::test]
async fn a_client_that_wants_no_texts_or_small_packets_gets_the_code_alone() {
    let store = Store::new(Mode::AtOnce);
    store.dead_letter("partId: missing");
    let server = serve(store).await;
    for limits in [&[23, 0][..], &[39, 0, 0, 0, 20]] {
        let mut device = server.wire().await;
        device.send(connect_v5("press", 0x02, limits)).await;
        assert_eq!(device.packet().await[0], 0x20);
        device.send(publish_v5(1, 2, "t", &[], b"a")).await;
        device.expect(&[0x40, 3, 0, 2, 0x99]).await;
    }
}

#[tokio::test]
async fn a_qos_1_publish_with_the_dup_flag_is_stored_like_any_other() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    device.send(publish(0x3A, 1, "t", None, b"a")).await;
    device.expect(&puback(1)).await;
    assert_eq!(store.payloads(), ["a"]);
}

#[tokio::test]
async fn what_was_published_before_disconnect_is_stored_even_when_the_store_was_busy() {
    let store = Store::new(Mode::Busy);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    device
        .send([publish_v311(0, 0, "t", b"a"), vec![0xE0, 0]].concat())
        .await;
    device.expect_end().await;
    store.set_mode(Mode::AtOnce);
    store.until(|store| store.payloads() == ["a"]).await;
}

#[tokio::test]
async fn subscribers_get_a_message_once_it_is_stored_and_not_before() {
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut reader = server.v311("reader").await;
    reader.send(subscribe_v311(1, "t/#", 1)).await;
    reader.expect(&[0x90, 3, 0, 1, 1]).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 1, "t/x", b"a")).await;
    store.until(|store| store.held() == 1).await;
    reader.ping().await;
    store.release(1);
    reader.expect(&publish_v311(1, 1, "t/x", b"a")).await;
    device.expect(&puback(1)).await;
}

#[tokio::test]
async fn a_drain_acknowledges_what_was_taken_and_tells_mqtt5_clients() {
    let store = Store::new(Mode::Hold);
    let mut server = serve(store.clone()).await;
    let mut old = server.v311("old").await;
    let mut new = server.v5("new").await;
    old.send(publish_v311(1, 1, "t", b"a")).await;
    new.send(publish_v5(1, 1, "t", &[], b"b")).await;
    store.until(|store| store.held() == 2).await;
    server.stop.cancel();
    store.release(2);
    old.expect(&puback(1)).await;
    old.expect_end().await;
    new.expect(&puback(1)).await;
    new.expect(&[0xE0, 1, 0x8B]).await;
    new.expect_end().await;
    let drained = tokio::time::timeout(common::SOON, server.served.take().unwrap())
        .await
        .unwrap();
    assert!(drained.unwrap());
}

#[tokio::test]
async fn a_drain_ends_in_time_although_the_store_never_answers() {
    let store = Store::new(Mode::Hold);
    let config = BrokerConfig {
        drain_timeout_ms: 100,
        ..config()
    };
    let server = serve_with(config, store.clone()).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 1, "t", b"a")).await;
    store.until(|store| store.held() == 1).await;
    server.stop.cancel();
    device.expect_end().await;
}

#[tokio::test]
async fn large_messages_pass_unchanged_in_batches_of_the_size_that_the_store_takes() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut device = server.v311("press").await;
    let payloads = (0..8)
        .map(|n: u8| vec![b'a' + n; 50_000 * usize::from(n)])
        .collect::<Vec<_>>();
    for (id, payload) in (1..).zip(&payloads) {
        device.send(publish_v311(1, id, "t", payload)).await;
    }
    for id in 1..=8 {
        device.expect(&puback(id)).await;
    }
    assert!(
        store
            .messages()
            .iter()
            .map(|message| &message.payload[..])
            .eq(payloads.iter().map(|p| &p[..]))
    );
}
