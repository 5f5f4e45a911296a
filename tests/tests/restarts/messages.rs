//! Retained messages, queued ones, those under way to a subscriber, and wills.

use crate::Gateway;
use crate::wire::{
    packet, properties, puback, pubcomp, publish, publish_v311, pubrec, pubrel, subscribe_v311, text,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_are_found_after_a_crash_as_they_were_last_and_removed_ones_are_not() {
    let mut gateway = Gateway::start();
    gateway.publish(1, "kept/a", b"first").await;
    gateway.publish(1, "kept/a", b"last").await;
    gateway.publish(1, "removed", b"x").await;
    gateway.publish(1, "removed", b"").await;
    gateway.crash();
    let mut reader = gateway.wire().await;
    reader.connect_v311("reader").await;
    reader.send(subscribe_v311(1, "#", 1)).await;
    reader.expect(&[0x90, 3, 0, 1, 1]).await;
    reader.expect(&publish(0x33, 1, "kept/a", None, b"last")).await;
    reader.send(puback(1)).await;
    reader.ping().await;
    // A removal survives too.
    gateway.publish(1, "kept/a", b"").await;
    gateway.crash();
    let mut reader = gateway.wire().await;
    reader.connect_v311("reader").await;
    reader.subscribe_v311("#", 1).await;
    reader.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_for_a_sleeping_subscriber_comes_after_a_crash_once_and_in_order() {
    let mut gateway = Gateway::start();
    let mut reader = gateway.resume_v311("reader", false).await;
    reader.subscribe_v311("t", 2).await;
    drop(reader);
    for number in 0..20 {
        gateway.publish(0, "t", format!("{number}").as_bytes()).await;
    }
    gateway.crash();
    let mut reader = gateway.resume_v311("reader", true).await;
    for number in 0..20_u16 {
        let (id, payload) = (number + 1, format!("{number}"));
        let message = reader.packet().await;
        // The first may have gone out before the gateway saw that the reader had left: then they come as repeats.
        let again = publish(0x3A, id, "t", None, payload.as_bytes());
        assert!(
            message == again || message == publish_v311(1, id, "t", payload.as_bytes()),
            "{message:02x?}"
        );
        reader.send(puback(id)).await;
    }
    reader.ping().await;
    // Another session's commit is behind what those acknowledgements changed.
    drop(gateway.resume_v311("other", false).await);
    gateway.crash();
    gateway.resume_v311("reader", true).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_to_a_subscriber_goes_on_after_a_crash_under_the_same_identifiers() {
    let mut gateway = Gateway::start();
    let mut reader = gateway.resume_v311("reader", false).await;
    reader.subscribe_v311("t", 2).await;
    let mut device = gateway.wire().await;
    device.connect_v311("device").await;
    for (id, payload) in [(1, b"1"), (2, b"2")] {
        device.send(publish_v311(2, id, "t", payload)).await;
        device.expect(&pubrec(id)).await;
        reader.expect(&publish_v311(2, id, "t", payload)).await;
    }
    gateway.publish(0, "t", b"3").await;
    reader.expect(&publish_v311(1, 3, "t", b"3")).await;
    reader.send(pubrec(1)).await;
    reader.expect(&pubrel(1)).await;

    gateway.crash();

    let mut reader = gateway.resume_v311("reader", true).await;
    reader.expect(&pubrel(1)).await;
    reader.expect(&publish(0x3C, 2, "t", None, b"2")).await;
    // That it went out need not have been on disk: then it is sent as a message that was not sent before.
    let third = reader.packet().await;
    assert!(
        third == publish(0x3A, 3, "t", None, b"3") || third == publish_v311(1, 3, "t", b"3"),
        "{third:02x?}"
    );
    reader.send([pubcomp(1), pubrec(2), puback(3)].concat()).await;
    reader.expect(&pubrel(2)).await;
    reader.send(pubcomp(2)).await;
    reader.ping().await;
    drop(gateway.resume_v311("other", false).await);
    gateway.crash();
    gateway.resume_v311("reader", true).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_will_of_a_session_that_lost_its_connection_to_a_crash_comes_after_its_delay() {
    let mut gateway = Gateway::start();
    let mut reader = gateway.resume_v311("reader", false).await;
    reader.subscribe_v311("will", 1).await;
    let connect = |client_id: &str| {
        let expiry = properties(&[17, 0, 0, 14, 16]);
        let delay = properties(&[24, 0, 0, 0, 2]);
        let head = [b"\0\x04MQTT\x05".as_slice(), &[0x0C, 0, 60]].concat();
        packet(
            0x10,
            &[
                &head,
                &expiry,
                &text(client_id),
                &delay,
                &text("will"),
                &text(client_id),
            ],
        )
    };
    let (mut lost, mut back) = (gateway.wire().await, gateway.wire().await);
    for (wire, client_id) in [(&mut lost, "lost"), (&mut back, "back")] {
        wire.send(connect(client_id)).await;
        assert_eq!(wire.packet().await[0], 0x20);
    }
    gateway.crash();
    let (_back, present) = gateway.v5("back", false, 3600).await;
    assert!(present);
    let mut reader = gateway.resume_v311("reader", true).await;
    reader.expect(&publish_v311(1, 1, "will", b"lost")).await;
    reader.send(puback(1)).await;
    reader.ping().await;
}
