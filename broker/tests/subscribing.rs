//! What subscribers get: QoS, retained messages, options, shares, MQTT 5 properties.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::wire::{
    connect_v5, puback, pubcomp, publish, publish_v5, publish_v311, pubrec, pubrel, subscribe_v5,
    subscribe_v311, unsubscribe_v5, unsubscribe_v311,
};
use common::{Mode, Server, Store, Wire, config, serve, serve_with};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::{FanoutConfig, SessionConfig};

async fn server() -> Server {
    serve(Store::new(Mode::AtOnce)).await
}

/// Publishes with QoS 1 and waits for the acknowledgement: the message has been given to all subscribers then.
async fn publish_and_wait(device: &mut Wire, first: u8, topic: &str, payload: &[u8]) {
    device.send(publish(first | 0x02, 9, topic, None, payload)).await;
    device.expect(&puback(9)).await;
}

#[tokio::test]
async fn each_subscriber_gets_the_lower_qos_of_message_and_subscription() {
    for filter in ["t", "t/#"] {
        let server = server().await;
        let mut readers = Vec::new();
        for qos in 0..3 {
            let mut reader = server.v311(&format!("reader-{qos}")).await;
            reader.subscribe_v311(filter, qos).await;
            readers.push(reader);
        }
        let mut device = server.v311("press").await;
        let mut ids = [0; 3];
        for published in 0..3_u8 {
            device.send(publish_v311(published, 5, "t", b"x")).await;
            for (subscribed, reader) in (0..).zip(&mut readers) {
                let qos = published.min(subscribed);
                let id = &mut ids[usize::from(subscribed)];
                *id += u16::from(qos > 0);
                reader.expect(&publish_v311(qos, *id, "t", b"x")).await;
            }
        }
    }
}

#[tokio::test]
async fn a_qos_2_delivery_goes_its_four_steps() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("t", 2).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(2, 5, "t", b"x")).await;
    device.expect(&pubrec(5)).await;
    reader.expect(&publish_v311(2, 1, "t", b"x")).await;
    reader.send(pubrec(1)).await;
    reader.expect(&pubrel(1)).await;
    reader.send(pubcomp(1)).await;
    reader.ping().await;
}

#[tokio::test]
async fn retained_messages_come_with_the_flag_and_an_empty_one_removes() {
    let server = server().await;
    let mut device = server.v311("press").await;
    publish_and_wait(&mut device, 0x31, "state/a", b"on").await;
    publish_and_wait(&mut device, 0x31, "state/b", b"off").await;
    publish_and_wait(&mut device, 0x30, "state/c", b"not retained").await;
    publish_and_wait(&mut device, 0x30, "state/a", b"").await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("state/+", 0).await;
    reader.expect(&publish(0x31, 0, "state/a", None, b"on")).await;
    reader.expect(&publish(0x31, 0, "state/b", None, b"off")).await;
    publish_and_wait(&mut device, 0x31, "state/a", b"").await;
    reader.expect(&publish_v311(0, 0, "state/a", b"")).await;
    let mut later = server.v311("later").await;
    later.subscribe_v311("state/#", 1).await;
    later.expect(&publish(0x33, 1, "state/b", None, b"off")).await;
    later.ping().await;
}

#[tokio::test]
async fn retain_handling_and_retain_as_published_are_kept() {
    let server = server().await;
    let mut device = server.v311("press").await;
    publish_and_wait(&mut device, 0x31, "t", b"1").await;
    let mut reader = server.v5("reader").await;
    let retained = publish(0x31, 0, "t", Some(&[]), b"1");
    // Only if new: the first time and not the second.
    reader.subscribe_v5("t", 0x10).await;
    reader.expect(&retained).await;
    reader.subscribe_v5("t", 0x10).await;
    reader.ping().await;
    reader.subscribe_v5("t", 0x00).await;
    reader.expect(&retained).await;
    reader.subscribe_v5("t", 0x20).await;
    reader.ping().await;
    publish_and_wait(&mut device, 0x31, "t", b"2").await;
    reader.expect(&publish_v5(0, 0, "t", &[], b"2")).await;
    reader.subscribe_v5("t", 0x28).await;
    publish_and_wait(&mut device, 0x31, "t", b"3").await;
    reader.expect(&publish(0x31, 0, "t", Some(&[]), b"3")).await;
}

#[tokio::test]
async fn no_local_keeps_ones_own_messages_away() {
    let server = server().await;
    let mut one = server.v5("one").await;
    one.subscribe_v5("t/#", 0x04).await;
    one.send(publish_v5(1, 1, "t/a", &[], b"own")).await;
    one.expect(&puback(1)).await;
    let mut other = server.v311("other").await;
    publish_and_wait(&mut other, 0x30, "t/a", b"other's").await;
    one.expect(&publish_v5(0, 0, "t/a", &[], b"other's")).await;
}

#[tokio::test]
async fn overlapping_subscriptions_bring_one_copy_with_the_highest_qos_and_all_identifiers() {
    let server = server().await;
    let mut reader = server.v5("reader").await;
    for (filter, options, id) in [("t/#", 1, 5), ("t/+", 2, 6)] {
        reader.send(subscribe_v5(1, filter, options, &[11, id])).await;
        reader.expect(&[0x90, 4, 0, 1, 0, options]).await;
    }
    let mut device = server.v311("press").await;
    for (published, id) in [(1, 1), (0, 0)] {
        device.send(publish_v311(published, 3, "t/a", b"x")).await;
        let got = reader.packet().await;
        let (first, second) = (
            publish_v5(published, id, "t/a", &[11, 5, 11, 6], b"x"),
            publish_v5(published, id, "t/a", &[11, 6, 11, 5], b"x"),
        );
        assert!(got == first || got == second, "{got:02x?}");
    }
    reader.ping().await;
}

#[tokio::test]
async fn an_unsubscribed_filter_brings_nothing_more() {
    for filter in ["t", "t/#"] {
        let server = server().await;
        let mut device = server.v311("press").await;
        let mut old = server.v311("old").await;
        old.subscribe_v311(filter, 0).await;
        let mut new = server.v5("new").await;
        new.subscribe_v5(filter, 0).await;
        device.send(publish_v311(0, 0, "t", b"1")).await;
        old.expect(&publish_v311(0, 0, "t", b"1")).await;
        new.expect(&publish_v5(0, 0, "t", &[], b"1")).await;
        old.send(unsubscribe_v311(2, filter)).await;
        old.expect(&[0xB0, 2, 0, 2]).await;
        new.send(unsubscribe_v5(2, filter)).await;
        new.expect(&[0xB0, 4, 0, 2, 0, 0]).await;
        device.send(publish_v311(0, 0, "t", b"2")).await;
        publish_and_wait(&mut device, 0x30, "t", b"3").await;
        old.ping().await;
        new.ping().await;
    }
}

#[tokio::test]
async fn a_share_gives_each_message_to_one_member_whatever_other_groups_of_its_name_do() {
    let server = server().await;
    let mut members = Vec::new();
    for name in ["m1", "m2"] {
        let mut member = server.v5(name).await;
        member.subscribe_v5("$share/g/t/+", 1).await;
        members.push(member);
    }
    let mut elsewhere = server.v5("elsewhere").await;
    elsewhere.subscribe_v5("$share/g/other", 1).await;
    let mut device = server.v311("press").await;
    for payload in [b"1", b"2", b"3", b"4"] {
        publish_and_wait(&mut device, 0x30, "t/a", payload).await;
    }
    let mut seen = Vec::new();
    for member in &mut members {
        for id in 1..=2 {
            let packet = member.packet().await;
            assert_eq!(packet[0] & 0xF6, 0x32);
            seen.push(*packet.last().unwrap());
            member.send(puback(id)).await;
        }
        member.ping().await;
    }
    seen.sort_unstable();
    assert_eq!(seen, b"1234");
    elsewhere.ping().await;
}

#[tokio::test]
async fn properties_pass_from_publisher_to_subscriber_and_to_the_store() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let properties = [
        &[1, 1][..],
        &[3, 0, 4, b'j', b's', b'o', b'n'],
        &[8, 0, 1, b'r'],
        &[9, 0, 2, 0, 0xFF],
        &[38, 0, 1, b'k', 0, 1, b'v', 38, 0, 1, b'k', 0, 1, b'w'],
    ]
    .concat();
    for (filter, qos) in [("t", 0), ("t", 1), ("t/#", 0), ("t/#", 1)] {
        let mut reader = server.v5("reader").await;
        reader.subscribe_v5(filter, 1).await;
        let mut device = server.v5("press").await;
        device.send(publish_v5(qos, 1, "t", &properties, b"x")).await;
        reader.expect(&publish_v5(qos, 1, "t", &properties, b"x")).await;
    }
    let stored = store.messages()[0].properties.clone().unwrap();
    assert_eq!(stored.payload_format_utf8, Some(true));
    assert_eq!(stored.content_type.as_deref(), Some("json"));
    assert_eq!(stored.response_topic.as_deref(), Some("r"));
    assert_eq!(stored.correlation_data.as_deref(), Some(&[0, 0xFF][..]));
    assert_eq!(
        stored.user,
        [("k".to_owned(), "v".to_owned()), ("k".to_owned(), "w".to_owned())]
    );
}

#[tokio::test]
async fn a_topic_alias_of_the_publisher_stands_for_its_topic() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut device = server.v5("press").await;
    device.send(publish_v5(0, 0, "t/a", &[35, 0, 1], b"1")).await;
    device.send(publish_v5(0, 0, "", &[35, 0, 1], b"2")).await;
    device.send(publish_v5(0, 0, "t/b", &[35, 0, 1], b"3")).await;
    device.send(publish_v5(1, 1, "", &[35, 0, 1], b"4")).await;
    device.expect(&puback(1)).await;
    let topics = store
        .messages()
        .iter()
        .map(|m| m.topic.as_str().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(topics, ["t/a", "t/a", "t/b", "t/b"]);
    device.send(publish_v5(0, 0, "", &[35, 0, 2], b"5")).await;
    assert_eq!(device.packet().await[2], 0x82);
    let mut other = server.v5("other").await;
    other.send(publish_v5(0, 0, "t", &[35, 0xFF, 0xFF], b"6")).await;
    assert_eq!(other.packet().await[2], 0x94);
}

#[tokio::test]
async fn topic_aliases_towards_a_subscriber_stand_for_topics_and_not_for_filters() {
    let server = server().await;
    let mut reader = server.wire().await;
    reader.send(connect_v5("reader", 2, &[34, 0, 2])).await;
    reader.packet().await;
    reader.subscribe_v5("t/#", 0).await;
    let mut device = server.v311("press").await;
    let (one, two) = ([35, 0, 1], [35, 0, 2]);
    for (topic, sent, properties) in [
        ("t/a", "t/a", &one[..]),
        ("t/b", "t/b", &two),
        ("t/a", "", &one),
        ("t/c", "t/c", &[]),
        ("t/b", "", &two),
    ] {
        device.send(publish_v311(0, 0, topic, b"x")).await;
        reader.expect(&publish_v5(0, 0, sent, properties, b"x")).await;
    }
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_subscriber_takes() {
    let server = server().await;
    let mut reader = server.wire().await;
    reader.send(connect_v5("reader", 2, &[33, 0, 2])).await;
    reader.packet().await;
    reader.subscribe_v5("t", 2).await;
    let mut device = server.v311("press").await;
    for payload in [b"1", b"2", b"3", b"4"] {
        publish_and_wait(&mut device, 0x30, "t", payload).await;
    }
    reader.expect(&publish_v5(1, 1, "t", &[], b"1")).await;
    reader.expect(&publish_v5(1, 2, "t", &[], b"2")).await;
    reader.ping().await;
    reader.send(puback(2)).await;
    reader.expect(&publish_v5(1, 3, "t", &[], b"3")).await;
    reader.ping().await;
    reader.send([puback(1), puback(3)].concat()).await;
    reader.expect(&publish_v5(1, 4, "t", &[], b"4")).await;
}

#[tokio::test]
async fn a_message_larger_than_the_subscriber_takes_is_left_out() {
    let server = server().await;
    let mut reader = server.wire().await;
    reader.send(connect_v5("reader", 2, &[39, 0, 0, 0, 30])).await;
    reader.packet().await;
    reader.subscribe_v5("t", 1).await;
    let mut device = server.v311("press").await;
    publish_and_wait(&mut device, 0x30, "t", &[b'x'; 30]).await;
    publish_and_wait(&mut device, 0x30, "t", b"small").await;
    let got = reader.packet().await;
    assert!(got.ends_with(b"small"), "{got:02x?}");
}

#[tokio::test]
async fn a_message_past_its_expiry_is_not_delivered_and_the_rest_of_it_is_told() {
    let server = server().await;
    let mut reader = server.wire().await;
    reader.send(connect_v5("reader", 2, &[17, 0, 0, 0, 60])).await;
    reader.packet().await;
    reader.subscribe_v5("t", 1).await;
    drop(reader);
    let mut device = server.v5("press").await;
    device
        .send(publish_v5(1, 1, "t", &[2, 0, 0, 0, 0], b"expired"))
        .await;
    device.expect(&puback(1)).await;
    device
        .send(publish_v5(1, 2, "t", &[2, 0, 0, 0, 100], b"lives"))
        .await;
    device.expect(&puback(2)).await;
    let mut reader = server.wire().await;
    reader.send(connect_v5("reader", 0, &[])).await;
    reader.packet().await;
    let got = reader.packet().await;
    assert!(got.ends_with(b"lives"), "{got:02x?}");
    let left_s = u32::from_be_bytes(got[9..13].try_into().unwrap());
    assert!((90..=100).contains(&left_s), "{left_s} s left");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_costs_a_bounded_queue_and_then_is_told() {
    let session = SessionConfig {
        max_queued_messages: 10,
        ..SessionConfig::default()
    };
    let server = serve_with(BrokerConfig { session, ..config() }, Store::new(Mode::AtOnce)).await;
    let mut slow = server.wire().await;
    slow.send(connect_v5("slow", 2, &[33, 0, 1])).await;
    slow.packet().await;
    slow.subscribe_v5("t", 1).await;
    let mut device = server.v311("press").await;
    for _ in 0..20 {
        publish_and_wait(&mut device, 0x30, "t", b"x").await;
    }
    slow.expect(&publish_v5(1, 1, "t", &[], b"x")).await;
    slow.expect(&[0xE0, 1, 0x97]).await;
    slow.expect_end().await;
}

#[tokio::test]
async fn a_subscriber_that_reads_nothing_at_all_delays_nobody() {
    let server = server().await;
    let mut stuck = server.v311("stuck").await;
    stuck.subscribe_v311("#", 0).await;
    let mut awake = server.v311("awake").await;
    awake.subscribe_v311("end", 0).await;
    let mut device = server.v311("press").await;
    let payload = vec![7; 100_000];
    for _ in 0..500 {
        publish_and_wait(&mut device, 0x30, "load", &payload).await;
    }
    publish_and_wait(&mut device, 0x30, "end", b"").await;
    awake.expect(&publish_v311(0, 0, "end", b"")).await;
}

#[tokio::test]
async fn without_the_router_everything_is_delivered_all_the_same() {
    let fanout = FanoutConfig {
        max_filters: 0,
        ..FanoutConfig::default()
    };
    let server = serve_with(BrokerConfig { fanout, ..config() }, Store::new(Mode::AtOnce)).await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("#", 0).await;
    let mut device = server.v311("press").await;
    for qos in 0..3 {
        device.send(publish_v311(qos, 1, "t", b"x")).await;
        reader.expect(&publish_v311(0, 0, "t", b"x")).await;
    }
}

#[tokio::test]
async fn one_subscribe_with_many_filters_is_answered_once_in_their_order() {
    let server = server().await;
    let mut reader = server.v311("reader").await;
    let many = [
        subscribe_v311(1, "a", 0),
        subscribe_v311(1, "b/#", 1),
        subscribe_v311(1, "c", 2),
    ];
    let filters = many
        .iter()
        .flat_map(|packet| packet[4..].to_vec())
        .collect::<Vec<_>>();
    reader
        .send(common::wire::packet(0x82, &[&[0, 1], &filters]))
        .await;
    reader.expect(&[0x90, 5, 0, 1, 0, 1, 2]).await;
}

/// Both packets are there when the front looks, so the order is its own. On one thread: two serve two connections side
/// by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_publish_takes_its_turn_behind_a_subscribe_that_came_first_on_another_connection() {
    let server = server().await;
    let mut device = server.v311("press").await;
    for number in 0..200 {
        let mut reader = server.v311(&format!("reader-{number}")).await;
        let topic = format!("t/{number}");
        reader.send(subscribe_v311(1, &topic, 0)).await;
        device.send(publish_v311(0, 0, &topic, b"x")).await;
        reader.expect(&[0x90, 3, 0, 1, 0]).await;
        reader.expect(&publish_v311(0, 0, &topic, b"x")).await;
    }
}
