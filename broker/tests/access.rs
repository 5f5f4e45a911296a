//! Who may publish and subscribe to what, as clients see it.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::wire::{
    connect_v5, packet, puback, publish_v5, publish_v311, subscribe_v5, subscribe_v311, text,
};
use common::{Mode, Server, Store, config, serve_with};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::{Access, AclConfig, RefusedPublish, RefusedSubscribe, RuleConfig};

fn rule(users: &[&str], access: Access, topics: &[&str]) -> RuleConfig {
    RuleConfig {
        users: users.iter().map(|user| (*user).into()).collect(),
        access,
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
    }
}

/// Everything but `secret/#`, and `own/%c` for its client alone.
fn rules() -> AclConfig {
    AclConfig {
        rules: vec![
            rule(&[], Access::ReadWrite, &["open/#", "secret/#", "own/%c/#"]),
            rule(&[], Access::Deny, &["secret/#", "open/closed"]),
            rule(&[], Access::Write, &["up"]),
        ],
        ..AclConfig::default()
    }
}

async fn server(acl: AclConfig, store: &std::sync::Arc<Store>) -> Server {
    serve_with(BrokerConfig { acl, ..config() }, store.clone()).await
}

#[tokio::test]
async fn a_v5_client_is_told_of_each_publish_that_it_may_not_make_and_goes_on() {
    let store = Store::new(Mode::AtOnce);
    let server = server(rules(), &store).await;
    let mut device = server.v5("press").await;
    device.send(publish_v5(1, 1, "secret/a", &[], b"x")).await;
    device.expect(&[0x40, 3, 0, 1, 0x87]).await;
    device.send(publish_v5(2, 2, "own/other/a", &[], b"x")).await;
    device.expect(&[0x50, 3, 0, 2, 0x87]).await;
    device.send(publish_v5(0, 0, "elsewhere", &[], b"x")).await;
    device.send(publish_v5(1, 3, "own/press/a", &[], b"mine")).await;
    device.expect(&puback(3)).await;
    assert_eq!(store.payloads(), ["mine"]);
}

#[tokio::test]
async fn a_v311_client_gets_no_acknowledgement_of_a_publish_that_is_not_taken() {
    let store = Store::new(Mode::AtOnce);
    let server = server(rules(), &store).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(0, 0, "secret/a", b"dropped")).await;
    device.send(publish_v311(1, 1, "open/a", b"before")).await;
    device.expect(&puback(1)).await;
    device.send(publish_v311(1, 2, "secret/a", b"x")).await;
    device.expect_end().await;
    assert_eq!(store.payloads(), ["before"]);
}

#[tokio::test]
async fn a_v311_client_is_acknowledged_and_the_message_dropped_where_the_configuration_says_so() {
    let store = Store::new(Mode::AtOnce);
    let acl = AclConfig {
        refused_publish_v311: RefusedPublish::Acknowledge,
        ..rules()
    };
    let server = server(acl, &store).await;
    let mut device = server.v311("press").await;
    device.send(publish_v311(1, 1, "secret/a", b"x")).await;
    device.expect(&puback(1)).await;
    device.send(publish_v311(2, 2, "secret/a", b"x")).await;
    device.expect(&common::wire::pubrec(2)).await;
    device.send(common::wire::pubrel(2)).await;
    device.expect(&common::wire::pubcomp(2)).await;
    assert!(store.messages().is_empty());
}

#[tokio::test]
async fn a_filter_that_is_not_permitted_is_refused_alone() {
    let store = Store::new(Mode::AtOnce);
    let server = server(rules(), &store).await;
    let mut old = server.v311("old").await;
    let filters = [
        text("secret/a"),
        vec![0],
        text("open/a"),
        vec![1],
        text("#"),
        vec![0],
    ]
    .concat();
    old.send(packet(0x82, &[&[0, 1], &filters])).await;
    old.expect(&[0x90, 5, 0, 1, 0x80, 1, 0x80]).await;
    let mut new = server.v5("new").await;
    for (filter, code) in [
        ("secret/a", 0x87),
        ("up", 0x87),
        ("own/new/+", 0),
        ("own/+/a", 0x87),
        ("$share/g/secret/#", 0x87),
        ("$share/g/open/#", 0x87),
        ("$share/g/open/a", 0),
    ] {
        new.send(subscribe_v5(1, filter, 0, &[])).await;
        assert_eq!(new.packet().await, [0x90, 4, 0, 1, 0, code], "{filter}");
    }
}

#[tokio::test]
async fn a_refused_subscription_need_not_tell_that_there_is_a_rule() {
    let acl = AclConfig {
        refused_subscribe_v5: RefusedSubscribe::Unspecified,
        ..rules()
    };
    let server = server(acl, &Store::new(Mode::AtOnce)).await;
    let mut reader = server.v5("reader").await;
    reader.send(subscribe_v5(1, "secret/a", 0, &[])).await;
    reader.expect(&[0x90, 4, 0, 1, 0, 0x80]).await;
    let mut old = server.v311("old").await;
    old.send(subscribe_v311(1, "secret/a", 0)).await;
    old.expect(&[0x90, 3, 0, 1, 0x80]).await;
}

#[tokio::test]
async fn what_is_denied_of_a_wide_subscription_is_never_delivered_in_any_qos_or_retained() {
    let store = Store::new(Mode::AtOnce);
    let acl = AclConfig {
        rules: vec![
            rule(&[], Access::ReadWrite, &["#"]),
            rule(&[], Access::DenyRead, &["open/closed"]),
        ],
        ..AclConfig::default()
    };
    let server = server(acl, &store).await;
    let mut device = server.v311("press").await;
    device
        .send(common::wire::publish(0x33, 1, "open/closed", None, b"kept"))
        .await;
    device.expect(&puback(1)).await;
    let mut reader = server.v311("reader").await;
    reader.subscribe_v311("open/#", 1).await;
    for qos in [0, 1] {
        device.send(publish_v311(qos, 2, "open/closed", b"never")).await;
        device.send(publish_v311(qos, 3, "open/door", b"seen")).await;
        reader.expect(&publish_v311(qos, 1, "open/door", b"seen")).await;
        if qos == 1 {
            reader.send(puback(1)).await;
        }
    }
    reader.ping().await;
}

#[tokio::test]
async fn a_will_that_may_not_be_published_is_refused_with_the_connection() {
    let store = Store::new(Mode::AtOnce);
    let server = server(rules(), &store).await;
    let connect = |level: u8, topic: &str| {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        packet(
            0x10,
            &[
                b"\0\x04MQTT",
                &[level, 0x06, 0, 60],
                properties,
                &text("press"),
                properties,
                &text(topic),
                &text("gone"),
            ],
        )
    };
    for (level, topic, code) in [
        (4, "secret/will", 5),
        (5, "secret/will", 0x87),
        (4, "open/will", 0),
        (5, "own/press/will", 0),
    ] {
        let mut device = server.wire().await;
        device.send(connect(level, topic)).await;
        assert_eq!(device.packet().await[3], code, "MQTT {level}: {topic}");
    }
}

#[tokio::test]
async fn a_client_id_with_wildcards_widens_nothing() {
    let store = Store::new(Mode::AtOnce);
    let server = server(rules(), &store).await;
    for id in ["+", "#", "press/up"] {
        let mut rogue = server.wire().await;
        rogue.send(connect_v5(id, 2, &[])).await;
        assert_eq!(rogue.packet().await[3], 0);
        rogue.send(publish_v5(1, 1, "own/press/up", &[], b"x")).await;
        rogue.expect(&[0x40, 3, 0, 1, 0x87]).await;
        rogue.send(subscribe_v5(1, "own/+/#", 0, &[])).await;
        rogue.expect(&[0x90, 4, 0, 1, 0, 0x87]).await;
    }
    assert!(store.messages().is_empty());
}

#[tokio::test]
async fn new_rules_of_the_file_revoke_what_they_permit_no_more_while_connections_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acl.toml");
    let write = |rules: &str| {
        std::fs::write(dir.path().join("new"), rules).unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
    };
    write("[[rules]]\naccess = 'readwrite'\ntopics = ['#']\n");
    let store = Store::new(Mode::AtOnce);
    let acl = AclConfig {
        file: Some(file.clone()),
        ..AclConfig::default()
    };
    let server = server(acl, &store).await;
    let (mut reader, mut device) = (server.v311("reader").await, server.v5("press").await);
    reader.subscribe_v311("closed/#", 0).await;
    reader.subscribe_v311("open/#", 0).await;
    device.send(publish_v5(1, 1, "closed/a", &[], b"seen")).await;
    device.expect(&puback(1)).await;
    reader.expect(&publish_v311(0, 0, "closed/a", b"seen")).await;

    write(
        "[[rules]]\naccess = 'readwrite'\ntopics = ['open/#']\n[[rules]]\naccess = 'write'\ntopics = ['closed/#']\n",
    );
    let in_force = async {
        loop {
            device.send(subscribe_v5(2, "closed/probe", 0, &[])).await;
            if device.packet().await[5] == 0x87 {
                break;
            }
        }
    };
    tokio::time::timeout(common::SOON, in_force)
        .await
        .expect("the new rules never came into force");
    for (topic, payload) in [("closed/a", b"never"), ("open/a", b"still")] {
        device.send(publish_v5(1, 3, topic, &[], payload)).await;
        device.expect(&puback(3)).await;
    }
    reader.expect(&publish_v311(0, 0, "open/a", b"still")).await;
    reader.ping().await;
}

#[tokio::test]
async fn rules_of_a_file_are_in_force_and_a_file_that_is_wrong_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acl.toml");
    std::fs::write(&file, "[[rules]]\naccess = 'readwrite'\ntopics = ['#']\n[[rules]]\naccess = 'deny'\ntopics = ['test/nosubscribe']\n").unwrap();
    let acl = AclConfig {
        file: Some(file.clone()),
        ..AclConfig::default()
    };
    let store = Store::new(Mode::AtOnce);
    let server = server(acl.clone(), &store).await;
    let mut reader = server.v311("reader").await;
    reader.send(subscribe_v311(1, "test/nosubscribe", 2)).await;
    reader.expect(&[0x90, 3, 0, 1, 0x80]).await;
    reader.subscribe_v311("#", 2).await;

    std::fs::write(&file, "[[rules]]\naccess = 'some'\n").unwrap();
    let front = shopfloor_broker::Front::new(
        BrokerConfig { acl, ..config() },
        store.clone(),
        tokio_util::sync::CancellationToken::new(),
    );
    let why = front.bind().await.unwrap_err().to_string();
    assert!(why.contains("acl.toml:2"), "{why}");
}
