//! MQTT over WebSocket, plain and encrypted, with paho-mqtt.

use std::net::SocketAddr;

use serde_json::json;

use crate::clients::round_trip;
use crate::{Gateway, free_address};

const TOPIC: &str = "factory/operator/state";

/// A gateway, and its addresses for WebSocket, plain and over TLS.
fn gateway() -> (Gateway, SocketAddr, SocketAddr) {
    let (ws, wss) = (free_address(), free_address());
    let gateway = Gateway::with(|pki| {
        format!(
            r#"
[[mqtt.listeners]]
listen = "{ws}"
transport = "ws"

[[mqtt.listeners]]
listen = "{wss}"
transport = "wss"
tls = {{ certificate = "{dir}/server.pem", key = "{dir}/server.key" }}
"#,
            dir = pki.dir.path().display()
        )
    });
    (gateway, ws, wss)
}

#[test]
fn paho_gets_its_messages_back_over_websocket_plain_and_encrypted() {
    let (gateway, ws, wss) = gateway();
    let cafile = gateway.pki.path("ca.pem");
    let plain = json!({"user": "operator", "password": "geheim"});
    let encrypted = json!({"user": "operator", "password": "geheim", "cafile": cafile});
    for (address, more) in [(ws, plain), (wss, encrypted)] {
        for version in ["311", "5"] {
            let ran = round_trip(address, "websockets", version, TOPIC, more.clone()).ended(0);
            assert_eq!(ran.stdout, "QoS 0\nQoS 1\nQoS 2\n", "{version} {more}");
        }
    }
}

#[test]
fn a_wrong_password_is_refused_over_websocket_too() {
    let (_gateway, ws, _) = gateway();
    let wrong = json!({"user": "operator", "password": "falsch"});
    for version in ["311", "5"] {
        let ran = round_trip(ws, "websockets", version, TOPIC, wrong.clone()).ended(4);
        assert!(
            ran.stderr.to_lowercase().contains("bad user name or password"),
            "{ran:?}"
        );
    }
}
