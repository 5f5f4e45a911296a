//! What an operator changes while devices are connected: files, then SIGHUP.

use std::io;
use std::time::Duration;

use shopfloor_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ALL_VERSIONS;

use crate::clients::{As, publish};
use crate::pki::{Device, Pki};
use crate::{Gateway, own_topics, set_password};

const SOON: Duration = Duration::from_secs(30);
const STATE: &str = "factory/operator/state";

impl Gateway {
    fn reloads(&self, what: &str, outcome: &str) -> u64 {
        self.count(&format!(
            r#"shopfloor_reloads_total{{what="{what}",outcome="{outcome}"}}"#
        ))
    }

    /// SIGHUP; returns when certificates, passwords and rules were read since.
    fn hang_up(&self, tls_outcome: &str) {
        let parts = [("tls", tls_outcome), ("passwords", "ok"), ("acl", "ok")];
        let before = parts.map(|(what, outcome)| self.reloads(what, outcome));
        self.server.hang_up();
        for ((what, outcome), before) in parts.into_iter().zip(before) {
            wait::until(&format!("{what} read again: {outcome}"), SOON, || {
                let now = self.reloads(what, outcome);
                wait::holds(now > before, now)
            });
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.server.dir().join("log")).expect("the gateway's log")
    }
}

/// A connection of its own client, which does not connect again by itself.
struct Open {
    stream: TlsStream<TcpStream>,
    runtime: tokio::runtime::Runtime,
}

impl Open {
    fn new(gateway: &Gateway, device: &Device) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connector = gateway.pki.connector(Some(device), ALL_VERSIONS);
        let stream = runtime.block_on(async {
            let socket = TcpStream::connect(gateway.tls).await?;
            let name = "localhost".try_into().map_err(io::Error::other)?;
            connector.connect(name, socket).await
        });
        let stream = stream.expect("a TLS connection");
        let mut open = Self { stream, runtime };
        let connect = b"\x10\x10\0\x04MQTT\x04\x02\0\0\0\x04open";
        assert_eq!(
            open.exchange(connect).expect("an answer to CONNECT"),
            [0x20, 2, 0, 0]
        );
        open
    }

    fn exchange(&mut self, packet: &[u8]) -> io::Result<Vec<u8>> {
        let Self { stream, runtime } = self;
        runtime.block_on(async {
            stream.write_all(packet).await?;
            let mut head = [0; 2];
            tokio::time::timeout(SOON, stream.read_exact(&mut head)).await??;
            let mut rest = vec![0; head[1].into()];
            tokio::time::timeout(SOON, stream.read_exact(&mut rest)).await??;
            Ok([&head[..], &rest].concat())
        })
    }

    fn assert_served(&mut self) {
        let answer = self.exchange(&[0xC0, 0]).expect("the open connection goes on");
        assert_eq!(answer, [0xD0, 0]);
    }
}

#[test]
fn sighup_reads_everything_again_although_nothing_has_changed() {
    let gateway = Gateway::start();
    gateway.hang_up("ok");
}

#[test]
fn a_new_certificate_is_shown_to_new_clients_and_a_bad_one_changes_nothing() {
    let gateway = Gateway::start();
    let device = gateway.pki.issue("press-1", 10);
    let mut open = Open::new(&gateway, &device);
    gateway.issue("mill-1", 11);
    let mill = As::Certificate(&gateway.pki, "mill-1");
    let topic = "factory/mill-1/state";
    publish(gateway.tls, "mqttv5", &mill, topic).ended(0);

    // Of another authority: who has it cannot be talking to the old one.
    let next = Pki::new();
    let take_over =
        |file: &str| std::fs::read_to_string(next.path(file)).expect("a file of the new authority");
    gateway.pki.write("server.key", &take_over("server.key"));
    gateway.pki.write("server.pem", &take_over("server.pem"));
    gateway.hang_up("ok");
    let refused = publish(gateway.tls, "mqttv5", &mill, topic);
    assert!(refused.stderr.contains("A TLS error occurred"), "{refused:?}");
    next.write(
        "mill-1.pem",
        &std::fs::read_to_string(gateway.pki.path("mill-1.pem")).unwrap(),
    );
    next.write(
        "mill-1.key",
        &std::fs::read_to_string(gateway.pki.path("mill-1.key")).unwrap(),
    );
    let mill = As::Certificate(&next, "mill-1");
    publish(gateway.tls, "mqttv5", &mill, topic).ended(0);
    open.assert_served();

    gateway.pki.write("server.pem", "no certificate\n");
    gateway.hang_up("failed");
    publish(gateway.tls, "mqttv5", &mill, topic).ended(0);
    open.assert_served();
    let log = gateway.log();
    let told = log
        .lines()
        .any(|line| line.contains("the old one stays in force") && line.contains("server.pem holds none"));
    assert!(told, "{log}");
}

#[test]
fn a_new_password_counts_from_then_on_and_the_old_one_no_longer() {
    let gateway = Gateway::start();
    let (old, new) = (As::User("operator", "geheim"), As::User("operator", "neu"));
    publish(gateway.tcp, "mqttv5", &old, STATE).ended(0);
    set_password(&gateway.pki, "operator", "neu");
    gateway.hang_up("ok");
    publish(gateway.tcp, "mqttv5", &old, STATE).ended(0x86);
    publish(gateway.tcp, "mqttv5", &new, STATE).ended(0);
}

#[test]
fn new_rules_count_from_then_on() {
    let gateway = Gateway::start();
    let operator = As::User("operator", "geheim");
    publish(gateway.tcp, "mqttv311", &operator, STATE).ended(0);
    publish(gateway.tcp, "mqttv311", &operator, "line/operator/state").ended(7);
    gateway.pki.write("acl.toml", &own_topics("line"));
    gateway.hang_up("ok");
    publish(gateway.tcp, "mqttv311", &operator, STATE).ended(7);
    publish(gateway.tcp, "mqttv311", &operator, "line/operator/state").ended(0);
}

#[test]
fn a_revoked_device_is_refused_from_then_on_and_the_others_are_not() {
    let gateway = Gateway::start();
    for (name, serial) in [("press-1", 10), ("mill-1", 11)] {
        gateway.issue(name, serial);
    }
    let press = As::Certificate(&gateway.pki, "press-1");
    let mill = As::Certificate(&gateway.pki, "mill-1");
    publish(gateway.tls, "mqttv5", &press, "factory/press-1/state").ended(0);
    gateway.pki.write_crl(&[10]);
    gateway.hang_up("ok");
    let refused = publish(gateway.tls, "mqttv5", &press, "factory/press-1/state");
    assert_ne!(refused.code, 0, "{refused:?}");
    publish(gateway.tls, "mqttv5", &mill, "factory/mill-1/state").ended(0);
}
