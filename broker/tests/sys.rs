//! `$SYS` as a monitoring tool sees it.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::HashMap;

use common::wire::{connect_v311, puback, publish, publish_v311, subscribe_v311};
use common::{Mode, Server, Store, Wire, config, serve_with};
use shopfloor_broker::BrokerConfig;

async fn server(sys_interval_s: u16) -> Server {
    let config = BrokerConfig {
        sys_interval_s,
        ..config()
    };
    serve_with(config, Store::new(Mode::AtOnce)).await
}

/// The next message of a 3.1.1 subscriber: topic and text.
async fn message(reader: &mut Wire) -> (String, String) {
    let packet = reader.packet().await;
    assert_eq!(packet[0] >> 4, 3, "{packet:02x?}");
    let end = 4 + usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&packet[4..end]), text(&packet[end..]))
}

/// Reads until `done`; the last value of each topic.
async fn values(
    reader: &mut Wire,
    done: impl Fn(&HashMap<String, String>) -> bool,
) -> HashMap<String, String> {
    let mut values = HashMap::new();
    while !done(&values) {
        let (topic, value) = message(reader).await;
        values.insert(topic.strip_prefix("$SYS/broker/").unwrap().to_owned(), value);
    }
    values
}

#[tokio::test]
async fn what_the_front_counts_stands_in_the_topics_that_mosquitto_names() {
    let server = server(1).await;
    let mut device = server.v311("press").await;
    for id in 1..=5 {
        device.send(publish_v311(1, id, "t", b"12345678")).await;
        device.expect(&puback(id)).await;
    }
    let mut reader = server.v311("monitor").await;
    reader.subscribe_v311("$SYS/#", 0).await;
    let is = |values: &HashMap<String, String>, name: &str, value: &str| {
        values.get(name).is_some_and(|found| found == value)
    };
    let values = values(&mut reader, |values| {
        is(values, "publish/messages/received", "5")
            && is(values, "publish/bytes/received", "40")
            && is(values, "clients/connected", "2")
            && is(values, "clients/total", "2")
            && is(values, "clients/maximum", "2")
            && is(values, "subscriptions/count", "1")
            && is(values, "retained messages/count", "0")
            // CONNECT and PUBLISH of the device, CONNECT and SUBSCRIBE of the reader.
            && is(values, "messages/received", "8")
            && ["messages/sent", "bytes/sent", "bytes/received", "load/publish/received/15min"]
                .iter()
                .all(|name| values.get(*name).is_some_and(|value| value != "0" && value != "0.00"))
    })
    .await;
    assert_eq!(
        values["version"],
        concat!("shopfloor version ", env!("CARGO_PKG_VERSION"))
    );
    assert!(values["uptime"].ends_with(" seconds"));
    let number = |name: &str| values[name].parse::<f64>().unwrap();
    assert!(number("bytes/received") >= 5.0 * 15.0);
    assert!(number("load/publish/received/1min") > number("load/publish/received/15min"));
}

#[tokio::test]
async fn what_waits_what_was_dropped_and_what_went_out_is_told() {
    let mut config = BrokerConfig {
        sys_interval_s: 1,
        ..config()
    };
    config.session.max_queued_messages = 100;
    let server = serve_with(config, Store::new(Mode::AtOnce)).await;
    // A hundred wait for a client that sleeps, the next is dropped; one more is retained.
    let mut asleep = server.wire().await;
    asleep.send(connect_v311("asleep", 0, 60)).await;
    asleep.expect(&[0x20, 2, 0, 0]).await;
    asleep.subscribe_v311("$share/g/t", 1).await;
    asleep.send([0xE0, 0]).await;
    asleep.expect_end().await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("t", 0).await;
    let mut device = server.v311("press").await;
    for id in 1..=101 {
        device.send(publish_v311(1, id, "t", b"12345678")).await;
        device.expect(&puback(id)).await;
        reader.packet().await;
    }
    device.send(publish(0x31, 0, "state", None, b"on")).await;
    let mut monitor = server.v311("monitor").await;
    monitor.subscribe_v311("$SYS/#", 0).await;
    let expected = [
        ("publish/messages/dropped", "1"),
        ("store/messages/count", "101"),
        ("messages/stored", "101"),
        // Topics and payloads.
        ("store/messages/bytes", "907"),
        ("shared_subscriptions/count", "1"),
        ("subscriptions/count", "2"),
        ("clients/active", "3"),
        ("clients/inactive", "1"),
        ("clients/expired", "0"),
        ("connections/socket/count", "4"),
    ];
    let values = values(&mut monitor, |values| {
        expected
            .iter()
            .all(|(name, value)| values.get(*name).is_some_and(|found| found == value))
            && ["load/sockets/1min", "load/publish/dropped/15min"]
                .iter()
                .all(|name| values.get(*name).is_some_and(|value| value != "0.00"))
    })
    .await;
    let sent_bytes = values["publish/bytes/sent"].parse::<u64>().unwrap();
    assert!(sent_bytes >= 101 * 8, "{sent_bytes}");
}

#[tokio::test]
async fn a_number_sign_does_not_select_them_and_a_late_subscriber_gets_them_as_retained() {
    let server = server(1).await;
    let mut first = server.v311("first").await;
    first.subscribe_v311("$SYS/broker/version", 0).await;
    message(&mut first).await;
    let mut all = server.v311("all").await;
    for (id, filter) in [(1, "#"), (2, "+/broker/version")] {
        all.send(subscribe_v311(id, filter, 0)).await;
        all.packet().await;
    }
    let mut late = server.v311("late").await;
    late.subscribe_v311("$SYS/broker/version", 0).await;
    assert_eq!(late.packet().await[0], 0x31, "retained");
    // One more round of changes, then something that is for everybody.
    let mut uptime = server.v311("uptime").await;
    uptime.subscribe_v311("$SYS/broker/uptime", 0).await;
    message(&mut uptime).await;
    message(&mut uptime).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(0, 0, "end", b"")).await;
    assert_eq!(message(&mut all).await.0, "end");
}

#[tokio::test]
async fn an_interval_of_zero_turns_them_off() {
    let server = server(0).await;
    let mut reader = server.v311("monitor").await;
    reader.subscribe_v311("$SYS/#", 0).await;
    reader.ping().await;
}
