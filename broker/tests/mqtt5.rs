//! MQTT 5 beyond the plain exchange of messages, and what Eclipse Paho's interoperability suite asks of it.
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
    connect_v5, packet, properties, puback, pubcomp, publish, publish_v5, publish_v311, pubrec, pubrel,
    subscribe_v5, text,
};
use common::{Mode, Server, Store, Wire, config, serve, serve_with};
use shopfloor_broker::BrokerConfig;

async fn server() -> Server {
    serve(Store::new(Mode::AtOnce)).await
}

/// A connected client with these CONNECT properties.
async fn connect_with(server: &Server, client_id: &str, props: &[u8]) -> Wire {
    let mut wire = server.wire().await;
    wire.send(connect_v5(client_id, 0x02, props)).await;
    let connack = wire.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    wire
}

/// A client with a will on `will` that is gone without a word.
async fn vanish(server: &Server, client_id: &str, expiry_s: u8, will_props: &[u8]) -> Instant {
    let mut device = server.wire().await;
    let body = [
        &b"\0\x04MQTT\x05\x06\0\x3C"[..],
        &properties(&[17, 0, 0, 0, expiry_s]),
        &text(client_id),
        &properties(will_props),
        &text("will"),
        &text("gone"),
    ];
    device.send(packet(0x10, &body)).await;
    assert_eq!(device.packet().await[3], 0);
    Instant::now()
}

#[tokio::test]
async fn an_acknowledgement_of_the_wrong_kind_ends_the_connection() {
    let server = server().await;
    for (qos, wrong) in [(1, pubrec(1)), (1, pubcomp(1)), (2, puback(1)), (2, pubcomp(1))] {
        for v5 in [true, false] {
            let mut reader = if v5 {
                server.v5("reader").await
            } else {
                server.v311("reader").await
            };
            if v5 {
                reader.subscribe_v5("t", 2).await;
            } else {
                reader.subscribe_v311("t", 2).await;
            }
            let mut device = server.v311("press").await;
            device.send(publish_v311(qos, 5, "t", b"x")).await;
            assert_eq!(reader.packet().await[0] >> 4, 3);
            reader.send(&wrong).await;
            if v5 {
                let told = reader.packet().await;
                assert_eq!((told[0], told[2]), (0xE0, 0x82), "{told:02x?} after {wrong:02x?}");
            }
            reader.expect_end().await;
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_is_told_so_where_an_answer_is_due() {
    let server = server().await;
    let mut device = server.v5("press").await;
    device.send(pubrec(7)).await;
    device.expect(&[0x62, 3, 0, 7, 0x92]).await;
    device.send(pubrel(7)).await;
    device.expect(&[0x70, 3, 0, 7, 0x92]).await;
    device.send([puback(7), pubcomp(7)].concat()).await;
    device.ping().await;
}

#[tokio::test]
async fn a_puback_tells_that_nobody_got_the_message_and_only_then() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut device = server.v5("press").await;
    device.send(publish_v5(1, 1, "t", &[], b"x")).await;
    device.expect(&puback(1)).await;
    store.route_nothing();
    device.send(publish_v5(1, 2, "t", &[], b"x")).await;
    device.expect(&[0x40, 3, 0, 2, 0x10]).await;
    // PUBREC says that it came, and nothing of who will get it.
    device.send(publish_v5(2, 3, "t", &[], b"x")).await;
    device.expect(&pubrec(3)).await;
    let mut old = server.v311("old").await;
    old.send(publish_v311(1, 1, "t", b"x")).await;
    old.expect(&puback(1)).await;
    old.subscribe_v311("t", 0).await;
    device.send(publish_v5(1, 4, "t", &[], b"x")).await;
    device.expect(&puback(4)).await;
}

#[tokio::test]
async fn a_payload_format_passes_as_it_was_said_and_is_not_said_where_it_was_not() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut reader = server.v5("reader").await;
    reader.subscribe_v5("t", 0).await;
    let mut device = server.v5("press").await;
    let said = [(&[1, 0][..], Some(false)), (&[1, 1], Some(true)), (&[], None)];
    for (props, _) in said {
        device.send(publish_v5(0, 0, "t", props, b"x")).await;
        reader.expect(&publish_v5(0, 0, "t", props, b"x")).await;
    }
    let stored = store
        .messages()
        .iter()
        .map(|message| {
            message
                .properties
                .as_ref()
                .and_then(|props| props.payload_format_utf8)
        })
        .collect::<Vec<_>>();
    assert_eq!(stored, said.map(|(_, format)| format));
    device.send(publish_v5(0, 0, "t", &[1, 2], b"x")).await;
    assert_eq!(device.packet().await[0], 0xE0);
}

#[tokio::test]
async fn a_client_that_takes_no_packet_as_large_as_its_connack_gets_none() {
    let server = server().await;
    let mut tiny = server.wire().await;
    tiny.send(connect_v5("tiny", 2, &[39, 0, 0, 0, 8])).await;
    tiny.expect_end().await;
    server.v5("tiny").await.ping().await;
}

#[tokio::test]
async fn a_refusal_comes_without_its_text_where_the_client_takes_no_packet_of_that_size() {
    let server = server().await;
    let method = [&[21][..], &text("SCRAM")].concat();
    let mut told = server.wire().await;
    told.send(connect_v5("press", 2, &method)).await;
    let connack = told.packet().await;
    assert_eq!(connack[3], 0x8C);
    assert!(connack.len() > 20, "with a reason string: {connack:02x?}");
    let mut small = server.wire().await;
    small
        .send(connect_v5(
            "press",
            2,
            &[&method[..], &[39, 0, 0, 0, 20]].concat(),
        ))
        .await;
    small.expect(&[0x20, 3, 0, 0x8C, 0]).await;
    small.expect_end().await;
}

#[tokio::test]
async fn an_answer_larger_than_the_client_takes_is_never_sent() {
    let server = server().await;
    let mut small = connect_with(&server, "small", &[39, 0, 0, 0, 30]).await;
    let filters = (0..40)
        .flat_map(|number| [text(&format!("t/{number}")), vec![0]].concat())
        .collect::<Vec<_>>();
    small.send(packet(0x82, &[&[0, 1, 0], &filters])).await;
    let told = small.packet().await;
    assert!(told.len() <= 30);
    assert_eq!((told[0], told[2]), (0xE0, 0x95), "{told:02x?}");
}

#[tokio::test]
async fn a_client_without_keep_alive_stays_when_another_is_closed_for_its_silence() {
    let server = server().await;
    let mut patient = server.wire().await;
    let connect =
        |id: &str, keep_alive_s: u8| packet(0x10, &[b"\0\x04MQTT\x05\x02\0", &[keep_alive_s, 0], &text(id)]);
    patient.send(connect("patient", 0)).await;
    patient.packet().await;
    let mut silent = server.wire().await;
    silent.send(connect("silent", 1)).await;
    silent.packet().await;
    let started = Instant::now();
    silent.expect(&[0xE0, 1, 0x8D]).await;
    assert!(started.elapsed() >= Duration::from_millis(1_400));
    patient.ping().await;
}

#[tokio::test]
async fn the_keep_alive_that_the_server_tells_is_the_one_that_counts() {
    let server = serve_with(
        BrokerConfig {
            max_keep_alive_s: 1,
            ..config()
        },
        Store::new(Mode::AtOnce),
    )
    .await;
    let mut device = server.wire().await;
    device.send(connect_v5("press", 2, &[])).await;
    let connack = device.packet().await;
    assert!(
        connack.windows(3).any(|window| window == [19, 0, 1]),
        "{connack:02x?}"
    );
    device.expect(&[0xE0, 1, 0x8D]).await;
}

#[tokio::test]
async fn a_will_waits_for_its_delay_or_for_the_end_of_its_session_whichever_is_first() {
    let server = server().await;
    let mut reader = server.v5("reader").await;
    reader.subscribe_v5("will", 0).await;
    // Delay, expiry, and when it comes.
    for (delay_s, expiry_s, comes_s) in [(1, 100, 1), (100, 1, 1), (100, 0, 0)] {
        let left = vanish(&server, "press", expiry_s, &[24, 0, 0, 0, delay_s]).await;
        reader.expect(&publish_v5(0, 0, "will", &[], b"gone")).await;
        let waited = left.elapsed();
        let expected = Duration::from_secs(comes_s);
        assert!(
            waited + Duration::from_millis(50) >= expected,
            "delay {delay_s} s, expiry {expiry_s} s: after {waited:?}"
        );
    }
}

#[tokio::test]
async fn a_will_has_its_properties() {
    let server = server().await;
    let mut reader = server.v5("reader").await;
    reader.subscribe_v5("will", 0).await;
    let props = [
        &[1, 1, 3][..],
        &text("json"),
        &[8],
        &text("answers"),
        &[9, 0, 2, 0, 0xFF, 38],
        &text("k"),
        &text("v"),
    ]
    .concat();
    vanish(&server, "press", 0, &props).await;
    reader.expect(&publish_v5(0, 0, "will", &props, b"gone")).await;
}

#[tokio::test]
async fn a_retained_message_has_its_properties_and_the_rest_of_its_time() {
    let server = server().await;
    let mut device = server.v5("press").await;
    let user = [&[38][..], &text("k"), &text("v")].concat();
    let expiring = [&[2, 0, 0, 0, 100][..], &user].concat();
    device.send(publish(0x33, 1, "t", Some(&expiring), b"on")).await;
    device.expect(&puback(1)).await;
    let mut reader = server.v5("reader").await;
    reader.subscribe_v5("t", 0).await;
    let got = reader.packet().await;
    assert_eq!(got[0], 0x31, "retained");
    let left_s = u32::from_be_bytes(got[7..11].try_into().unwrap());
    assert!((90..=100).contains(&left_s), "{left_s} s left");
    assert!(got.ends_with(&[&user[..], b"on"].concat()), "{got:02x?}");
}

#[tokio::test]
async fn a_311_subscriber_gets_the_message_of_an_mqtt5_publisher_without_its_properties() {
    let server = server().await;
    let mut readers = Vec::new();
    for filter in ["t", "#"] {
        let mut reader = server.v311(filter).await;
        reader.subscribe_v311(filter, 1).await;
        readers.push(reader);
    }
    let mut device = server.v5("press").await;
    let props = [&[1, 1, 2, 0, 0, 0, 9, 38][..], &text("k"), &text("v")].concat();
    for qos in [0, 1] {
        device.send(publish_v5(qos, 1, "t", &props, b"x")).await;
        for reader in &mut readers {
            reader.expect(&publish_v311(qos, u16::from(qos), "t", b"x")).await;
        }
    }
}

#[tokio::test]
async fn a_topic_alias_ends_with_its_connection_and_zero_is_none() {
    let server = server().await;
    let mut device = connect_with(&server, "press", &[17, 0, 0, 0, 100]).await;
    device.send(publish_v5(1, 1, "t", &[35, 0, 1], b"x")).await;
    device.expect(&puback(1)).await;
    device.send([0xE0, 0]).await;
    device.expect_end().await;
    let mut device = server.wire().await;
    device.send(connect_v5("press", 0, &[17, 0, 0, 0, 100])).await;
    assert_eq!(device.packet().await[2], 1, "the session is there");
    device.send(publish_v5(1, 2, "", &[35, 0, 1], b"x")).await;
    let told = device.packet().await;
    assert_eq!((told[0], told[2]), (0xE0, 0x82), "{told:02x?}");
    let mut zero = server.v5("zero").await;
    zero.send(publish_v5(1, 1, "t", &[35, 0, 0], b"x")).await;
    assert_eq!(zero.packet().await[0], 0xE0);
}

#[tokio::test]
async fn a_client_that_takes_no_topic_alias_gets_none() {
    let server = server().await;
    let mut reader = connect_with(&server, "reader", &[34, 0, 0]).await;
    reader.subscribe_v5("t", 0).await;
    let mut device = server.v311("press").await;
    for _ in 0..2 {
        device.send(publish_v311(0, 0, "t", b"x")).await;
        reader.expect(&publish_v5(0, 0, "t", &[], b"x")).await;
    }
}

#[tokio::test]
async fn each_subscriber_gets_the_identifier_of_its_own_subscription() {
    let server = server().await;
    let mut readers = Vec::new();
    for (name, id) in [("one", vec![11, 0xD5, 0xF0, 0x1B]), ("two", vec![11, 2])] {
        let mut reader = server.v5(name).await;
        reader.send(subscribe_v5(1, "t", 1, &id)).await;
        reader.expect(&[0x90, 4, 0, 1, 0, 1]).await;
        readers.push((reader, id));
    }
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 5, "t", b"x")).await;
    for (reader, id) in &mut readers {
        reader.expect(&publish_v5(1, 1, "t", id, b"x")).await;
    }
    // A subscription that is made again without one has none.
    let (reader, _) = &mut readers[1];
    reader.subscribe_v5("t", 1).await;
    device.send(publish_v311(1, 6, "t", b"y")).await;
    reader.expect(&publish_v5(1, 2, "t", &[], b"y")).await;
}

#[tokio::test]
async fn a_request_finds_its_way_back_by_response_topic_and_correlation_data() {
    let server = server().await;
    let mut asks = server.v5("asks").await;
    asks.subscribe_v5("answers/asks", 1).await;
    let mut responds = server.v5("responds").await;
    responds.subscribe_v5("questions", 0x05).await;
    let correlation = [9, 0, 3, 3, 3, 4];
    let question = [&[8][..], &text("answers/asks"), &correlation].concat();
    asks.send(publish_v5(1, 1, "questions", &question, b"?")).await;
    responds
        .expect(&publish_v5(1, 1, "questions", &question, b"?"))
        .await;
    asks.expect(&puback(1)).await;
    responds
        .send(publish_v5(1, 1, "answers/asks", &correlation, b"!"))
        .await;
    asks.expect(&publish_v5(1, 1, "answers/asks", &correlation, b"!"))
        .await;
}

#[tokio::test]
async fn a_session_expiry_over_the_limit_is_shortened_and_told() {
    let mut config = config();
    config.session.max_expiry_s = 50;
    let server = serve_with(config, Store::new(Mode::AtOnce)).await;
    let mut device = server.wire().await;
    device
        .send(connect_v5("press", 2, &[17, 0xFF, 0xFF, 0xFF, 0xFF]))
        .await;
    let connack = device.packet().await;
    assert!(
        connack.windows(5).any(|window| window == [17, 0, 0, 0, 50]),
        "{connack:02x?}"
    );
}

#[tokio::test]
async fn what_is_published_under_a_dollar_sign_reaches_nobody_and_costs_no_connection() {
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("+/+", 2).await;
    reader.subscribe_v311("#", 2).await;
    for qos in 0..3 {
        let mut device = server.v311("press").await;
        device.send(publish_v311(qos, 1, "$TopicA/B", b"x")).await;
        if qos > 0 {
            device.packet().await;
        }
        device.ping().await;
    }
    reader.ping().await;
    assert!(store.messages().is_empty());
}
