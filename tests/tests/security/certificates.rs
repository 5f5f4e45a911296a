//! Client certificates, with Mosquitto's clients.

use crate::Gateway;
use crate::clients::{As, VERSIONS, publish, receive, subscribe};
use crate::pki::Pki;

#[test]
fn a_device_is_who_its_certificate_says_and_the_rules_go_by_that() {
    let gateway = Gateway::start();
    gateway.issue("press-1", 10);
    let press = As::Certificate(&gateway.pki, "press-1");
    for version in VERSIONS {
        subscribe(gateway.tls, version, &press, "factory/press-1/#").ended(0);
        publish(gateway.tls, version, &press, "factory/press-1/state").ended(0);
        let received = receive(gateway.tls, version, &press, "factory/press-1/#").ended(0);
        assert_eq!(received.stdout, "factory/press-1/state hello\n");

        let denied = subscribe(gateway.tls, version, &press, "factory/press-2/#");
        assert!(denied.stderr.contains("requests were denied"), "{denied:?}");
    }
    // MQTT 3.1.1 has no code for a publish that is refused: the connection ends without an acknowledgement.
    let refused = publish(gateway.tls, "mqttv311", &press, "factory/press-2/state").ended(7);
    assert!(refused.stderr.contains("connection was lost"), "{refused:?}");
    let refused = publish(gateway.tls, "mqttv5", &press, "factory/press-2/state");
    assert!(
        refused.stderr.contains("Publish 1 failed: Not authorized"),
        "{refused:?}"
    );
}

#[test]
fn without_a_certificate_or_with_a_strangers_nobody_is_let_in() {
    let gateway = Gateway::start();
    let stranger = Pki::new();
    let forged = stranger.issue("press-1", 10);
    gateway.pki.write("forged.pem", &forged.certificate.pem());
    gateway.pki.write("forged.key", &forged.key.serialize_pem());
    let refused = || gateway.count(r#"shopfloor_connections_refused_total{listener="mqtt",reason="tls"}"#);
    for (count, who) in [
        (1, As::Trusting(&gateway.pki)),
        (2, As::Certificate(&gateway.pki, "forged")),
    ] {
        // The client hears of it when it reads: in TLS 1.3 its own handshake is complete by then.
        let ran = publish(gateway.tls, "mqttv5", &who, "factory/press-1/state");
        assert_ne!(ran.code, 0, "{ran:?}");
        assert_eq!(refused(), count);
    }
}

#[test]
fn a_client_that_trusts_another_authority_does_not_talk_to_the_gateway() {
    let gateway = Gateway::start();
    let other = Pki::new();
    let ran = publish(
        gateway.tls,
        "mqttv5",
        &As::Trusting(&other),
        "factory/press-1/state",
    );
    assert!(
        ran.code != 0 && ran.stderr.contains("A TLS error occurred"),
        "{ran:?}"
    );
}
