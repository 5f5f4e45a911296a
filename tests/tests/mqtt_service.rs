//! The API's MQTT service against real gateways: what is answered with success the gateway has, and who follows a
//! topic reads every message or is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use serde_json::{Value, json};
use shopfloor::config::Config;
use shopfloor::node::GatewayNode;
use shopfloor_api::MqttConfig;
use shopfloor_tests::proxy::{Network, Proxy};
use shopfloor_tests::telemetry::{self, RunningApi, start};
use shopfloor_tests::{postgres, repository};

const WITHIN: Duration = Duration::from_secs(30);

/// A gateway with librdkafka's in-process Kafka.
struct Gateway {
    node: GatewayNode,
    _dir: tempfile::TempDir,
}

impl Gateway {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.gateway.data_dir = dir.path().to_owned();
        config.mqtt.auth.allow_anonymous = true;
        config.mqtt.listeners[0].listen = "127.0.0.1:0".parse().unwrap();
        Self {
            node: GatewayNode::start(&config, None).await.unwrap(),
            _dir: dir,
        }
    }

    fn address(&self) -> SocketAddr {
        self.node.mqtt[0]
    }

    async fn in_kafka(&self, topic: &str) -> u64 {
        let counts = self.node.bridge.cluster().count_records(vec![topic.into()]).await;
        counts.unwrap().values().sum()
    }

    /// Publishes as a machine does; returns when the gateway has acknowledged.
    async fn publish(&self, topic: &str, payload: &[u8]) {
        let (ip, port) = (self.address().ip().to_string(), self.address().port());
        let (client, mut eventloop) = AsyncClient::new(MqttOptions::new("a-machine", ip, port), 4);
        client
            .publish(topic, QoS::AtLeastOnce, false, Bytes::copy_from_slice(payload))
            .await
            .unwrap();
        use rumqttc::v5::{Event, mqttbytes::v5::Packet};
        while !matches!(
            eventloop.poll().await.unwrap(),
            Event::Incoming(Packet::PubAck(_))
        ) {}
    }
}

async fn api(brokers: &[SocketAddr], configure: impl FnOnce(&mut MqttConfig)) -> RunningApi {
    let mut config = telemetry::config(&postgres::database("mqtt"));
    config.mqtt.addresses = brokers.iter().map(SocketAddr::to_string).collect();
    configure(&mut config.mqtt);
    start(config).await
}

async fn publish(api: &RunningApi, body: Value) -> (u16, Value) {
    let headers = [("content-type", "application/json")];
    let answer = api
        .request(
            Method::POST,
            "/api/v1/mqtt/publish",
            &headers,
            body.to_string().into(),
        )
        .await;
    (
        answer.status.as_u16(),
        serde_json::from_slice(&answer.body).unwrap(),
    )
}

fn message(topic: &str, message: &str) -> Value {
    json!({"topic": topic, "message": message})
}

/// What a browser's `EventSource` would see.
struct Events {
    body: Incoming,
    read: BytesMut,
}

/// An event's name, empty for a message, and its data. A comment has the name `:`.
type Event = (String, String);

impl Events {
    /// Answers the refusal where there is no stream.
    async fn open(api: &RunningApi, filter: &str) -> Result<Self, (u16, Value)> {
        let escaped: String = filter.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let uri = format!("{}/api/v1/mqtt/subscribe?topic={escaped}", api.base);
        let request = Request::get(uri).body(Full::new(Bytes::new())).unwrap();
        let (head, body) = api.client.request(request).await.unwrap().into_parts();
        if head.status != 200 {
            let body = body.collect().await.unwrap().to_bytes();
            return Err((head.status.as_u16(), serde_json::from_slice(&body).unwrap()));
        }
        assert_eq!(head.headers["content-type"], "text/event-stream");
        Ok(Self {
            body,
            read: BytesMut::new(),
        })
    }

    async fn next(&mut self) -> Option<Event> {
        let event = tokio::time::timeout(WITHIN, self.parse()).await;
        event.expect("an event, or the stream's end")
    }

    async fn parse(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.read.windows(2).position(|bytes| bytes == b"\n\n") {
                let event = self.read.split_to(end);
                self.read.advance(2);
                return Some(parse(std::str::from_utf8(&event).unwrap()));
            }
            let frame = self.body.frame().await?.ok()?;
            self.read.extend_from_slice(&frame.into_data().ok()?);
        }
    }

    /// The next message's topic and content.
    async fn message(&mut self) -> Value {
        let (name, data) = self.next().await.expect("a message");
        assert_eq!(name, "", "{data}");
        serde_json::from_str(&data).unwrap()
    }
}

fn parse(event: &str) -> Event {
    if event.starts_with(':') {
        return (":".into(), String::new());
    }
    let field = |name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_start().to_owned()
    };
    (field("event:"), field("data:"))
}

#[tokio::test]
async fn what_is_published_over_http_is_in_kafka_and_at_mqtt_subscribers() {
    let gateway = Gateway::start().await;
    let api = api(&[gateway.address()], |_| {}).await;
    let mut events = Events::open(&api, "factory/#").await.unwrap();
    let topic = "factory/north/1/supply-chain";
    let unit =
        json!({"timeOfProduction": "2023-12-10T00:00:00.000Z", "order": 5, "var5": false, "machineId": 1,
        "partId": 4})
        .to_string();
    assert_eq!(
        publish(&api, message(topic, &unit)).await,
        (
            201,
            json!({"message": "Message published successfully", "value": unit})
        )
    );
    assert_eq!(events.message().await, message(topic, &unit));
    let began = Instant::now();
    while gateway.in_kafka("supply_chain").await != 1 {
        assert!(began.elapsed() < WITHIN, "the unit is not in Kafka");
    }
}

#[tokio::test]
async fn a_message_that_breaks_the_contract_of_its_topic_is_refused_with_the_gateways_reason() {
    let gateway = Gateway::start().await;
    let api = api(&[gateway.address()], |_| {}).await;
    let (status, body) = publish(&api, message("supply-chain", "no JSON")).await;
    assert_eq!(status, 422, "{body}");
    let text = body["message"].as_str().unwrap();
    assert!(
        text.starts_with("the MQTT broker refused the message: "),
        "{text}"
    );
    let too_deep = "level/".repeat(40);
    assert_eq!(publish(&api, message(&too_deep, "m")).await.0, 422);
    assert_eq!(publish(&api, message("a", "m")).await.0, 201);
}

#[tokio::test]
async fn a_body_without_a_topic_with_a_wildcard_or_with_no_texts_is_refused() {
    let api = api(&[], |_| {}).await;
    for (body, text) in [
        (json!({"message": "m"}), "topic should not be empty"),
        (
            message("a/#", "m"),
            "topic must not contain the wildcards + and #",
        ),
        (json!({"topic": 7, "message": "m"}), "topic must be a string"),
        (json!({"topic": "a", "message": {}}), "message must be a string"),
    ] {
        let (status, answered) = publish(&api, body.clone()).await;
        assert_eq!(
            (status, &answered["error"]),
            (400, &json!("Bad Request")),
            "{body}"
        );
        assert_eq!(answered["message"][0], text, "{body}");
    }
    let refused = Events::open(&api, "a/#/b").await.err().unwrap();
    assert_eq!(
        (refused.0, &refused.1["message"][0]),
        (400, &json!("topic must be an MQTT topic filter"))
    );
    // Without a broker both say why nothing happens.
    let off = json!("this server publishes and follows nothing: api.mqtt.addresses names no broker");
    let (status, body) = publish(&api, message("a", "m")).await;
    assert_eq!((status, &body["message"]), (501, &off));
    let refused = Events::open(&api, "a").await.err().unwrap();
    assert_eq!((refused.0, &refused.1["message"]), (501, &off));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_publish_at_once_and_each_answer_is_of_its_own_message() {
    let gateway = Gateway::start().await;
    let api = api(&[gateway.address()], |_| {}).await;
    let mut events = Events::open(&api, "many/+").await.unwrap();
    // Every tenth breaks its topic's contract.
    let answers = join_all((0..250).map(|number| {
        let api = &api;
        async move {
            let topic = if number % 10 == 9 {
                "material".to_owned()
            } else {
                format!("many/{number}")
            };
            (number, publish(api, message(&topic, "m")).await.0)
        }
    }))
    .await;
    for (number, status) in answers {
        assert_eq!(status, if number % 10 == 9 { 422 } else { 201 }, "{number}");
    }
    let mut topics = Vec::new();
    for _ in 0..225 {
        topics.push(events.message().await["topic"].clone());
    }
    topics.sort_by_key(Value::to_string);
    topics.dedup();
    assert_eq!(topics.len(), 225);
}

#[tokio::test]
async fn nothing_is_answered_with_success_that_the_broker_has_not_acknowledged() {
    let gateway = Gateway::start().await;
    let proxy = Proxy::start(gateway.address()).await;
    let api = api(&[proxy.address()], |config| config.publish_timeout_ms = 500).await;
    assert_eq!(publish(&api, message("a", "m")).await.0, 201);

    proxy.set(Network::LosesAnswers);
    let (status, body) = publish(&api, message("a", "m")).await;
    assert_eq!(status, 504);
    assert!(
        body["message"].as_str().unwrap().contains("may have arrived"),
        "{body}"
    );

    // What is under way when the connection breaks is told so at once, not at its deadline.
    let slow = self::api(&[proxy.address()], |config| config.publish_timeout_ms = 14_000).await;
    proxy.set(Network::Passes);
    assert_eq!(publish(&slow, message("a", "m")).await.0, 201);
    proxy.set(Network::LosesAnswers);
    let witness = self::api(&[gateway.address()], |_| {}).await;
    let mut events = Events::open(&witness, "b").await.unwrap();
    let asked = Instant::now();
    let under_way = publish(&slow, message("b", "m"));
    let breaks = async {
        // The gateway has it; its acknowledgement is lost.
        events.message().await;
        proxy.set(Network::Down);
    };
    let ((status, body), ()) = tokio::join!(under_way, breaks);
    assert_eq!(status, 503, "{body}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());

    // In an outage nobody waits.
    let asked = Instant::now();
    for _ in 0..20 {
        let (status, body) = publish(&slow, message("a", "m")).await;
        assert_eq!(
            (status, &body["message"]),
            (503, &json!("the MQTT broker cannot be reached, try again"))
        );
    }
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());

    proxy.set(Network::Passes);
    let began = Instant::now();
    while publish(&slow, message("a", "m")).await.0 != 201 {
        assert!(began.elapsed() < WITHIN, "the broker is back, and nobody noticed");
    }
}

#[tokio::test]
async fn of_two_brokers_one_is_published_to_and_both_are_followed() {
    let gateways = [Gateway::start().await, Gateway::start().await];
    let proxy = Proxy::start(gateways[0].address()).await;
    let api = api(&[proxy.address(), gateways[1].address()], |_| {}).await;
    let mut events = Events::open(&api, "factory/+/1/state").await.unwrap();
    for (gateway, site) in gateways.iter().zip(["north", "south"]) {
        let topic = format!("factory/{site}/1/state");
        gateway.publish(&topic, b"up").await;
        assert_eq!(events.message().await, message(&topic, "up"));
    }
    // Latin-1.
    gateways[1].publish("factory/south/1/state", b"\xfcber").await;
    assert_eq!(
        events.message().await,
        json!({"topic": "factory/south/1/state", "base64": "/GJlcg=="})
    );

    proxy.set(Network::Down);
    assert_eq!(events.next().await.unwrap().0, "interrupted");
    let began = Instant::now();
    while publish(&api, message("factory/east/1/state", "still")).await.0 != 201 {
        assert!(began.elapsed() < WITHIN, "the second broker is not used");
    }
    assert_eq!(events.message().await["message"], "still");
    proxy.set(Network::Passes);
    assert_eq!(events.next().await.unwrap().0, "resumed");
    gateways[0].publish("factory/north/1/state", b"back").await;
    assert_eq!(events.message().await["message"], "back");
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_told_and_delays_nobody() {
    let gateway = Gateway::start().await;
    let api = api(&[gateway.address()], |config| {
        config.stream_buffer_bytes = 200_000
    })
    .await;
    let mut slow = Events::open(&api, "load").await.unwrap();
    let payload = "x".repeat(50_000);
    // More than the sockets of both sides and the buffer hold.
    for _ in 0..400 {
        assert_eq!(publish(&api, message("load", &payload)).await.0, 201);
    }
    let mut read = 0;
    loop {
        match slow.next().await {
            Some((name, _)) if name.is_empty() => read += 1,
            Some((name, data)) => {
                assert_eq!(name, "overflow", "{data}");
                break;
            }
            None => panic!("the stream ended and did not say why"),
        }
    }
    assert!((1..400).contains(&read), "{read} messages were read");
    assert_eq!(slow.next().await, None);
}

#[tokio::test]
async fn streams_are_limited_and_a_closed_one_makes_room() {
    let gateway = Gateway::start().await;
    let proxy = Proxy::start(gateway.address()).await;
    let api = api(&[proxy.address()], |config| {
        config.max_streams = 2;
        config.heartbeat_ms = 100;
    })
    .await;
    let mut kept = Events::open(&api, "a").await.unwrap();
    let closed = Events::open(&api, "a").await.unwrap();
    let (status, body) = Events::open(&api, "a").await.err().unwrap();
    assert_eq!(status, 503);
    assert_eq!(body["message"], "too many MQTT subscriptions are open, try again");
    assert_eq!(
        kept.next().await.unwrap().0,
        ":",
        "a quiet stream has a heartbeat"
    );
    drop(closed);
    let began = Instant::now();
    while let Err((status, _)) = Events::open(&api, "a").await {
        assert_eq!(status, 503);
        assert!(began.elapsed() < WITHIN, "a closed stream keeps its place");
    }
    // The one that publishes, and the one that is kept.
    while proxy.open() > 2 {
        assert!(
            began.elapsed() < WITHIN,
            "{} connections to the broker",
            proxy.open()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn streams_end_with_the_server_and_do_not_hold_it_up() {
    let gateway = Gateway::start().await;
    let api = api(&[gateway.address()], |_| {}).await;
    let mut events = Events::open(&api, "a").await.unwrap();
    drop(api);
    while let Some((name, data)) = events.next().await {
        assert_eq!(name, ":", "{data}");
    }
}

#[test]
fn the_heartbeat_is_more_frequent_than_haproxys_patience() {
    let config = std::fs::read_to_string(repository::haproxy_config()).unwrap();
    let rest = config.split("frontend rest").nth(1).unwrap();
    let rest = rest.split("frontend internal").next().unwrap();
    for timeout in ["timeout client ", "timeout server "] {
        let line = rest.lines().find_map(|line| line.trim().strip_prefix(timeout));
        let seconds: u64 = line.unwrap().strip_suffix('s').unwrap().parse().unwrap();
        assert!(
            2 * MqttConfig::default().heartbeat_ms <= seconds * 1_000,
            "{timeout}{seconds}s"
        );
    }
}
