//! The promise: acknowledged only when stored, in order, whatever the store does.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;

use common::wire::{
    connect_v5, connect_v311, puback, pubcomp, publish, publish_v5, publish_v311, pubrec, pubrel,
    subscribe_v311,
};
use common::{Mode, Server, Store, Wire, config, serve, serve_with};
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
