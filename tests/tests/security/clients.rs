//! `mosquitto_pub`, `mosquitto_sub` and paho-mqtt, as their users start them.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use shopfloor_tests::operator::{self, Ran};
use shopfloor_tests::repository;

use crate::pki::Pki;

/// What `mosquitto_pub` and `mosquitto_sub` call the versions.
pub(crate) const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];
/// A client that hangs ends its test.
const WITHIN_S: &str = "60";

/// Who a client says it is.
pub(crate) enum As<'a> {
    Nobody,
    User(&'a str, &'a str),
    /// Over TLS, with the certificate of that name.
    Certificate(&'a Pki, &'a str),
    /// Over TLS, trusting that authority and without a certificate.
    Trusting(&'a Pki),
}

impl As<'_> {
    fn arguments(&self) -> Vec<String> {
        let trusting = |pki: &Pki| vec!["--cafile".to_owned(), pki.path("ca.pem").display().to_string()];
        match self {
            Self::Nobody => Vec::new(),
            Self::User(user, password) => ["-u", user, "-P", password].map(str::to_owned).into(),
            Self::Certificate(pki, name) => {
                let file = |kind: &str| pki.path(&format!("{name}.{kind}")).display().to_string();
                let own = ["--cert".to_owned(), file("pem"), "--key".to_owned(), file("key")];
                [trusting(pki), own.into()].concat()
            }
            Self::Trusting(pki) => trusting(pki),
        }
    }
}

fn mosquitto(program: &str, to: SocketAddr, version: &str, who: &As, more: &[&str]) -> Ran {
    let mut command = Command::new("timeout");
    command
        .args([WITHIN_S, program])
        // The server's certificate has this name.
        .args(["-h", "localhost", "-p", &to.port().to_string(), "-V", version])
        .args(who.arguments())
        .args(more);
    operator::run(command)
}

/// Publishes one message at QoS 1.
pub(crate) fn publish(to: SocketAddr, version: &str, who: &As, topic: &str) -> Ran {
    mosquitto(
        "mosquitto_pub",
        to,
        version,
        who,
        &["-q", "1", "-t", topic, "-m", "hello"],
    )
}

/// Subscribes for a session that is kept, and leaves.
pub(crate) fn subscribe(to: SocketAddr, version: &str, who: &As, filter: &str) -> Ran {
    let session = ["-c", "-i", version, "-q", "1", "-t", filter];
    mosquitto(
        "mosquitto_sub",
        to,
        version,
        who,
        &[&session[..], &["-E"]].concat(),
    )
}

/// The first message that waits for that session.
pub(crate) fn receive(to: SocketAddr, version: &str, who: &As, filter: &str) -> Ran {
    let session = ["-c", "-i", version, "-q", "1", "-t", filter];
    mosquitto(
        "mosquitto_sub",
        to,
        version,
        who,
        &[&session[..], &["-C", "1", "-v"]].concat(),
    )
}

/// paho-mqtt subscribes to a topic and publishes there with each QoS; it prints what came back.
pub(crate) fn round_trip(to: SocketAddr, transport: &str, version: &str, topic: &str, more: Value) -> Ran {
    let mut options = json!({
        "host": "localhost", "port": to.port(), "transport": transport, "version": version, "topic": topic,
    });
    let (Value::Object(all), Value::Object(more)) = (&mut options, more) else {
        panic!("further options are an object");
    };
    all.extend(more);
    let mut command = Command::new(repository::python());
    command
        .arg(repository::script("paho_round_trip.py"))
        .arg(options.to_string());
    operator::run(command)
}
