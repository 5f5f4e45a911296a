//! Every limit of the front: what a client is told at it, what is counted, and that the others go on. Those of
//! connections, by number, address and rate, are the listener's and tested there.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::{Duration, Instant};

use common::counted::by_reason;
use common::wire::{
    connect_v5, connect_v311, packet, properties, puback, publish, publish_v5, publish_v311, pubrec,
    subscribe_v5, subscribe_v311, text,
};
use common::{Mode, SOON, Server, Store, Wire, config, counted, serve_with};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::SessionConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn server(config: BrokerConfig) -> Server {
    counted::start();
    serve_with(config, Store::new(Mode::AtOnce)).await
}

async fn server_of(session: SessionConfig) -> Server {
    server(BrokerConfig { session, ..config() }).await
}

async fn publish_to_t(device: &mut Wire, payload: &[u8]) {
    device.send(publish_v311(1, 9, "t", payload)).await;
    device.expect(&puback(9)).await;
}

#[tokio::test]
async fn a_session_too_many_is_refused() {
    let server = server_of(SessionConfig {
        max_sessions: 1,
        ..SessionConfig::default()
    })
    .await;
    let before = by_reason("connects_refused", "too_many_sessions");
    let mut first = server.v5("first").await;
    let mut second = server.wire().await;
    second.send(connect_v5("second", 2, &[])).await;
    assert_eq!(second.packet().await[3], 0x89);
    let mut third = server.wire().await;
    third.send(connect_v311("third", 2, 60)).await;
    third.expect(&[0x20, 2, 0, 3]).await;
    assert_eq!(by_reason("connects_refused", "too_many_sessions"), before + 2);
    first.ping().await;
}

#[tokio::test]
async fn a_subscription_too_many_is_refused_alone() {
    let server = server_of(SessionConfig {
        max_subscriptions: 2,
        ..SessionConfig::default()
    })
    .await;
    let before = by_reason("subscribes_refused", "too_many");
    for (v5, refused) in [(true, 0x97), (false, 0x80)] {
        let mut reader = if v5 {
            server.v5("new").await
        } else {
            server.v311("old").await
        };
        for (id, filter, code) in [(1, "a", 0), (2, "b", 0), (3, "c", refused), (4, "a", 1)] {
            let qos = u8::from(id == 4);
            reader
                .send(if v5 {
                    subscribe_v5(id, filter, qos, &[])
                } else {
                    subscribe_v311(id, filter, qos)
                })
                .await;
            assert_eq!(reader.packet().await.last(), Some(&code), "{filter}");
        }
    }
    assert_eq!(by_reason("subscribes_refused", "too_many"), before + 2);
}

#[tokio::test]
async fn a_topic_over_the_limits_ends_a_311_connection_rather_than_be_acknowledged_and_lost() {
    counted::start();
    let store = Store::new(Mode::AtOnce);
    let limits = BrokerConfig {
        max_topic_bytes: 20,
        max_topic_levels: 3,
        ..config()
    };
    let server = serve_with(limits, store.clone()).await;
    let before = by_reason("publishes_refused", "topic_limits");
    for (qos, topic) in [(1, "a/b/c/d"), (2, "a234567890123456789012")] {
        let mut device = server.v311("press").await;
        device.send(publish_v311(qos, 1, topic, b"x")).await;
        device.expect_end().await;
    }
    let mut device = server.v311("press").await;
    device.send(publish_v311(0, 0, "a/b/c/d", b"x")).await;
    device.ping().await;
    device.send(subscribe_v311(1, "a/b/c/d", 0)).await;
    device.expect(&[0x90, 3, 0, 1, 0x80]).await;
    assert!(store.messages().is_empty());
    assert!(by_reason("publishes_refused", "topic_limits") >= before + 3);
}

#[tokio::test]
async fn what_a_311_client_sent_before_a_refused_publish_is_acknowledged_and_the_refused_one_is_not() {
    let store = Store::new(Mode::AtOnce);
    let limits = BrokerConfig {
        max_topic_levels: 3,
        ..config()
    };
    let server = serve_with(limits, store.clone()).await;
    let mut device = server.v311("press").await;
    let window = [(1, 1, "a/1"), (2, 2, "a/2"), (1, 3, "a/b/c/d"), (1, 4, "a/4")];
    let window = window.map(|(qos, id, topic)| publish_v311(qos, id, topic, b"x"));
    device.send(window.concat()).await;
    device.expect(&puback(1)).await;
    device.expect(&pubrec(2)).await;
    device.expect_end().await;
    assert_eq!(store.messages().len(), 2);
}

#[tokio::test]
async fn all_that_is_retained_comes_although_it_is_more_than_may_wait() {
    let server = server_of(SessionConfig {
        max_queued_messages: 10,
        max_inflight: 5,
        ..SessionConfig::default()
    })
    .await;
    let mut device = server.v311("press").await;
    for number in 100..150 {
        let topic = format!("state/{number}");
        device.send(publish(0x33, 9, &topic, None, b"on")).await;
        device.expect(&puback(9)).await;
    }
    let mut reader = server.v5("reader").await;
    reader.subscribe_v5("state/#", 1).await;
    // What is new meanwhile has the queue's whole bound for itself.
    device.send(publish_v311(1, 9, "state/new", b"on")).await;
    device.expect(&puback(9)).await;
    for (id, number) in (1..=51).zip((100..150).map(Some).chain([None])) {
        let got = reader.packet().await;
        let topic = number.map_or("state/new".to_owned(), |number| format!("state/{number}"));
        let first = if number.is_some() { 0x33 } else { 0x32 };
        assert_eq!(got, publish(first, id, &topic, Some(&[]), b"on"));
        reader.send(puback(id)).await;
    }
}

#[tokio::test]
async fn an_alias_of_a_topic_over_the_limits_is_refused_like_the_topic() {
    let server = server(BrokerConfig {
        max_topic_bytes: 20,
        ..config()
    })
    .await;
    let mut device = server.v5("press").await;
    let long = "t".repeat(60_000);
    for (id, topic) in [(1, long.as_str()), (2, "")] {
        device.send(publish_v5(1, id, topic, &[35, 0, 1], b"x")).await;
        device.expect(&[0x40, 3, 0, id as u8, 0x90]).await;
    }
    device.send(publish_v5(1, 3, "t", &[35, 0, 1], b"x")).await;
    device.expect(&puback(3)).await;
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_its_connection() {
    let server = server(BrokerConfig {
        max_packet_bytes: 1024,
        ..config()
    })
    .await;
    let before = by_reason("connections_closed", "packet_too_large");
    let mut device = server.v5("press").await;
    device.send([0x30, 0x80, 0x80, 0x01]).await;
    device
        .expect(&text_of_disconnect(0x95, "a packet over the maximum size"))
        .await;
    device.expect_end().await;
    assert_eq!(by_reason("connections_closed", "packet_too_large"), before + 1);
}

fn text_of_disconnect(reason: u8, rule: &str) -> Vec<u8> {
    packet(
        0xE0,
        &[&[reason], &properties(&[&[31], &text(rule)[..]].concat())],
    )
}

#[tokio::test]
async fn no_more_is_in_flight_to_a_311_client_than_the_configuration_says() {
    let server = server_of(SessionConfig {
        max_inflight: 2,
        ..SessionConfig::default()
    })
    .await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("t", 1).await;
    let mut device = server.v311("press").await;
    for payload in [b"1", b"2", b"3"] {
        publish_to_t(&mut device, payload).await;
    }
    reader.expect(&publish_v311(1, 1, "t", b"1")).await;
    reader.expect(&publish_v311(1, 2, "t", b"2")).await;
    reader.ping().await;
    reader.send(puback(1)).await;
    reader.expect(&publish_v311(1, 3, "t", b"3")).await;
}

#[tokio::test]
async fn a_packet_that_does_not_end_is_not_waited_for_however_slowly_it_comes() {
    let server = server(BrokerConfig {
        packet_timeout_ms: 300,
        ..config()
    })
    .await;
    let before = by_reason("connections_closed", "packet_timeout");
    let slow = server.v5("slow").await;
    let mut honest = server.v5("honest").await;
    let started = Instant::now();
    let (mut read, mut write) = slow.socket.into_split();
    write.write_all(&[0x30, 0xFF, 0xFF, 0x0F, 0, 1]).await.unwrap();
    let dribble = async {
        while write.write_all(b"t").await.is_ok() {
            honest.ping().await;
        }
        std::future::pending().await
    };
    let mut told = Vec::new();
    tokio::select! {
        read = tokio::time::timeout(SOON, read.read_to_end(&mut told)) => { read.unwrap().unwrap(); }
        () = dribble => {}
    }
    assert_eq!((told[0], told[2]), (0xE0, 0x80), "{told:02x?}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(by_reason("connections_closed", "packet_timeout"), before + 1);
    honest.ping().await;
}

#[tokio::test]
async fn a_client_is_throttled_for_the_retained_messages_that_it_asks_for_and_not_for_its_few_bytes() {
    let server = server(BrokerConfig {
        max_packets_per_s: 200,
        ..config()
    })
    .await;
    let mut device = server.v311("press").await;
    for number in 0..50 {
        device
            .send(publish(0x31, 0, &format!("state/{number}"), None, b"on"))
            .await;
    }
    device.ping().await;
    let before = by_reason("reads_throttled", "packets");
    let started = Instant::now();
    let mut greedy = server.v311("greedy").await;
    let subscribes = (1..=6).flat_map(|id| subscribe_v311(id, "#", 0));
    greedy.send(subscribes.collect::<Vec<_>>()).await;
    for _ in 0..6 {
        while greedy.packet().await[0] != 0x90 {}
    }
    greedy.send([0xC0, 0]).await;
    while greedy.packet().await[0] != 0xD0 {}
    assert!(
        started.elapsed() > Duration::from_millis(400),
        "300 retained messages at 200 a second took {:?}",
        started.elapsed()
    );
    assert!(by_reason("reads_throttled", "packets") > before);
}

#[tokio::test]
async fn topics_over_the_limits_and_the_servers_own_are_refused_alone() {
    let store = Store::new(Mode::AtOnce);
    let config = BrokerConfig {
        max_topic_bytes: 20,
        max_topic_levels: 3,
        ..config()
    };
    let server = serve_with(config, store.clone()).await;
    let mut device = server.v5("press").await;
    for (id, topic) in [
        (1, "a/b/c/d"),
        (2, "a234567890123456789012"),
        (3, "$SYS/broker/uptime"),
    ] {
        device.send(publish_v5(1, id, topic, &[], b"x")).await;
        device.expect(&[0x40, 3, 0, id as u8, 0x90]).await;
        if topic.starts_with('$') {
            continue;
        }
        device.send(subscribe_v5(id, topic, 0, &[])).await;
        device.expect(&[0x90, 4, 0, id as u8, 0, 0x8F]).await;
    }
    device.send(publish_v5(1, 4, "a/b/c", &[], b"x")).await;
    device.expect(&puback(4)).await;
    assert_eq!(store.messages().len(), 1);
}

#[tokio::test]
async fn a_client_that_sends_too_many_bytes_is_slowed_down_and_loses_nothing() {
    let server = server(BrokerConfig {
        max_bytes_per_s: 100_000,
        ..config()
    })
    .await;
    let before = by_reason("reads_throttled", "bytes");
    let mut fast = server.v311("fast").await;
    let started = Instant::now();
    for id in 1..=5 {
        fast.send(publish_v311(1, id, "t", &[b'x'; 50_000])).await;
    }
    for id in 1..=5 {
        fast.expect(&puback(id)).await;
    }
    fast.ping().await;
    assert!(
        started.elapsed() > Duration::from_millis(1_200),
        "250,000 bytes at 100,000 a second took {:?}",
        started.elapsed()
    );
    assert!(by_reason("reads_throttled", "bytes") > before);
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_slowed_down_and_loses_nothing() {
    let config = BrokerConfig {
        max_packets_per_s: 200,
        ..config()
    };
    let store = Store::new(Mode::AtOnce);
    let server = serve_with(config, store.clone()).await;
    let mut fast = server.v311("fast").await;
    let started = Instant::now();
    let packets = (1..=500).flat_map(|id| publish_v311(1, id, "t", b"x"));
    fast.send(packets.collect::<Vec<_>>()).await;
    let mut other = server.v311("other").await;
    other.ping().await;
    for id in 1..=500 {
        fast.expect(&puback(id)).await;
    }
    fast.ping().await;
    assert_eq!(store.messages().len(), 500);
    assert!(
        started.elapsed() > Duration::from_millis(1_000),
        "501 packets at 200 a second took {:?}",
        started.elapsed()
    );
}
