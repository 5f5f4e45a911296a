//! An ordinary client library against the front, both versions.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::Duration;

use common::{Mode, SOON, Server, Store, serve};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("the client waited too long")
}

#[tokio::test]
async fn rumqttc_v311_publishes_and_subscribes_in_every_qos() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let store = Store::new(Mode::AtOnce);
    let server = serve(store.clone()).await;
    let mut options = MqttOptions::new("rumqttc", "127.0.0.1", server.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .subscribe("factory/+/supply-chain", QoS::ExactlyOnce)
        .await
        .unwrap();
    let received = async {
        let mut received = Vec::new();
        while received.len() < 3 {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => {
                    for (qos, payload) in [
                        (QoS::AtMostOnce, "0"),
                        (QoS::AtLeastOnce, "1"),
                        (QoS::ExactlyOnce, "2"),
                    ] {
                        client
                            .publish("factory/1/supply-chain", qos, false, payload)
                            .await
                            .unwrap();
                    }
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    received.push((publish.qos as u8, publish.payload))
                }
                _ => {}
            }
        }
        received
    };
    let received = within(received).await;
    assert_eq!(
        received.iter().map(|(qos, _)| *qos).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(store.payloads(), ["0", "1", "2"]);
}

#[tokio::test]
async fn rumqttc_v5_publishes_with_properties_and_hears_of_a_dead_letter() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let store = Store::new(Mode::AtOnce);
    store.dead_letter("partId: missing");
    let server: Server = serve(store.clone()).await;
    let mut options = MqttOptions::new("rumqttc", "127.0.0.1", server.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    let properties = PublishProperties {
        content_type: Some("application/json".into()),
        ..PublishProperties::default()
    };
    client
        .publish_with_properties("t", QoS::AtLeastOnce, false, "{}", properties)
        .await
        .unwrap();
    let acknowledged = async {
        loop {
            if let Event::Incoming(Packet::PubAck(puback)) = events.poll().await.unwrap() {
                return puback;
            }
        }
    };
    let puback = within(acknowledged).await;
    assert_eq!(puback.reason, PubAckReason::PayloadFormatInvalid);
    assert_eq!(
        puback.properties.unwrap().reason_string.as_deref(),
        Some("partId: missing")
    );
    let stored = store.messages()[0].properties.clone().unwrap();
    assert_eq!(stored.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn a_message_that_was_not_stored_comes_again_from_an_ordinary_client() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let store = Store::new(Mode::Hold);
    let server = serve(store.clone()).await;
    let mut options = MqttOptions::new("rumqttc", "127.0.0.1", server.address.port());
    options.set_clean_session(false);
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .publish("t", QoS::AtLeastOnce, false, "kept")
        .await
        .unwrap();
    let acknowledged = tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::PubAck(_))) => return,
                Ok(_) => {}
                // The front has closed the connection; rumqttc connects again when it is polled.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    store.until(|store| store.held() == 1).await;
    store.set_mode(Mode::AtOnce);
    store.lose();
    within(acknowledged).await.unwrap();
    assert_eq!(store.payloads(), ["kept", "kept"]);
}
