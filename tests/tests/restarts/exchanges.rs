//! QoS 2 is exactly once in the spool, wherever between its four packets the gateway dies.

use crate::wire::{ack, pubcomp, publish, pubrec, pubrel};
use crate::{Gateway, spooled};

const TOPIC: &str = "supply-chain";

fn unit(order: usize) -> String {
    format!(
        r#"{{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":{order},"var5":false,"machineId":7,"partId":4}}"#
    )
}

/// PUBLISH with QoS 2, as 3.1.1 or 5.
fn send(v5: bool, dup: bool, id: u16, payload: &str) -> Vec<u8> {
    let first = 0x34 | if dup { 0x08 } else { 0 };
    publish(first, id, TOPIC, v5.then_some(&[][..]), payload.as_bytes())
}

async fn connect(gateway: &Gateway, v5: bool, present: bool) -> crate::Wire {
    if !v5 {
        return gateway.resume_v311("press", present).await;
    }
    let (wire, found) = gateway.v5("press", false, 3600).await;
    assert_eq!(found, present);
    wire
}

/// Where the gateway dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    /// PUBREC was sent, and for all that the client knows it never came.
    BeforePubrec,
    AfterPubrec,
    /// As `BeforePubrec`, for PUBCOMP.
    BeforePubcomp,
    AfterPubcomp,
}

async fn exchange(gateway: &mut Gateway, v5: bool, dies: Dies, payload: &str, present: bool) {
    let mut device = connect(gateway, v5, present).await;
    device.send(send(v5, false, 5, payload)).await;
    device.expect(&pubrec(5)).await;
    if dies == Dies::BeforePubrec {
        gateway.crash();
        device = connect(gateway, v5, true).await;
        device.send(send(v5, true, 5, payload)).await;
        device.expect(&pubrec(5)).await;
    }
    if dies == Dies::AfterPubrec {
        gateway.crash();
        device = connect(gateway, v5, true).await;
    }
    device.send(pubrel(5)).await;
    device.expect(&pubcomp(5)).await;
    if dies == Dies::BeforePubcomp {
        gateway.crash();
        device = connect(gateway, v5, true).await;
        device.send(pubrel(5)).await;
        // To MQTT 5 it may say that the identifier is not known any more.
        let answer = device.packet().await;
        assert!(
            answer == pubcomp(5) || (v5 && answer == [0x70, 3, 0, 5, 0x92]),
            "{answer:02x?}"
        );
    }
    if dies == Dies::AfterPubcomp {
        gateway.crash();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_once_in_the_spool_wherever_the_gateway_dies_and_its_identifier_is_free_after_it() {
    let mut gateway = Gateway::start();
    let mut sent = Vec::new();
    let points = [
        Dies::BeforePubrec,
        Dies::AfterPubrec,
        Dies::BeforePubcomp,
        Dies::AfterPubcomp,
    ];
    for v5 in [false, true] {
        for dies in points {
            let payload = unit(sent.len());
            // The same identifier each time: one that were left open would swallow the next message.
            exchange(&mut gateway, v5, dies, &payload, !sent.is_empty()).await;
            sent.push(payload);
        }
    }
    gateway.server.kill();
    let found = tokio::task::spawn_blocking(move || spooled(&gateway.data_dir()))
        .await
        .unwrap();
    assert_eq!(found, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ended_session_left_open_swallows_no_message_of_the_next() {
    let mut gateway = Gateway::start();
    let mut device = gateway.resume_v311("press", false).await;
    device.send(send(false, false, 5, &unit(1))).await;
    device.expect(&pubrec(5)).await;
    drop(device);
    // A clean session ends the old one; its identifiers mean nothing to it.
    let mut device = gateway.wire().await;
    device.connect_v311("press").await;
    gateway.crash();
    let mut device = gateway.resume_v311("press", false).await;
    device.send(send(false, false, 5, &unit(2))).await;
    device.expect(&pubrec(5)).await;
    device.send(ack(0x62, 5)).await;
    device.expect(&pubcomp(5)).await;
    gateway.server.kill();
    let found = tokio::task::spawn_blocking(move || spooled(&gateway.data_dir()))
        .await
        .unwrap();
    assert_eq!(found, [unit(1), unit(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_a_crash_left_open_swallows_no_other_message_with_its_identifier() {
    let mut gateway = Gateway::start();
    let mut device = gateway.resume_v311("press", false).await;
    device.send(send(false, false, 5, &unit(0))).await;
    device.expect(&pubrec(5)).await;
    // The client ends the exchange at another gateway. It is back with new messages: one that comes at once, and one
    // whose first PUBLISH was lost with its connection.
    for (order, dup) in [(1, false), (2, true)] {
        gateway.crash();
        device = gateway.resume_v311("press", true).await;
        device.send(send(false, dup, 5, &unit(order))).await;
        device.expect(&pubrec(5)).await;
        // Its own resend is the same message, also over the next crash.
        gateway.crash();
        device = gateway.resume_v311("press", true).await;
        device.send(send(false, true, 5, &unit(order))).await;
        device.expect(&pubrec(5)).await;
    }
    // Unchanged content, but no resend: a machine may say the same thing twice.
    device.send(send(false, false, 5, &unit(2))).await;
    device.expect(&pubrec(5)).await;
    device.send(pubrel(5)).await;
    device.expect(&pubcomp(5)).await;
    gateway.server.kill();
    let found = tokio::task::spawn_blocking(move || spooled(&gateway.data_dir()))
        .await
        .unwrap();
    assert_eq!(found, [unit(0), unit(1), unit(2), unit(2)]);
}
