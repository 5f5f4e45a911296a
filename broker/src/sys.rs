//! `$SYS`: what the front counts, as retained messages under the names that Mosquitto gives them, for tools that
//! look there. They pass neither the store nor the sinks, and `#` does not select them.
//!
//! Left out: the heap, bridges and outgoing packets of Mosquitto's own, for which nothing stands here.
//!
//! `counts` is what connections count as they go, `loads` its averages, [`run`] publishes what has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::hub::Hub;
use crate::loads::{Loads, PERIODS_MIN};
use crate::message::Message;
use crate::tap::Topic;

/// Publishes until the front stops.
pub(crate) async fn run(hub: Arc<Hub>, interval: Duration) {
    let started = Instant::now();
    let mut loads = Loads::new(interval);
    let mut most_connected = 0;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    publish(
        &hub,
        "version",
        concat!("shopfloor version ", env!("CARGO_PKG_VERSION")),
    );
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // First: what it publishes itself waits too, for a moment.
        publish_stored(&hub);
        let connected = hub.counts.connected.load(Ordering::Relaxed);
        most_connected = most_connected.max(connected);
        publish(
            &hub,
            "uptime",
            &format!("{} seconds", started.elapsed().as_secs()),
        );
        publish_clients(&hub, connected, most_connected);
        publish_traffic(&hub, &mut loads);
    }
}

fn publish_clients(hub: &Hub, connected: u64, most_connected: u64) {
    let sessions = hub.registry.len() as u64;
    let disconnected = sessions.saturating_sub(connected);
    publish_numbers(
        hub,
        [
            ("clients/total", sessions),
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", disconnected),
            ("clients/inactive", disconnected),
            ("clients/expired", value(&hub.counts.expired)),
            ("clients/maximum", most_connected),
        ],
    );
}

/// What is there: a message that waits for two clients counts twice, since each has a copy of its own on disk.
fn publish_stored(hub: &Hub) {
    let (waiting, waiting_bytes) = hub.registry.waiting();
    let retained = hub.retained.len();
    let messages = (waiting + retained) as u64;
    let shared = hub.subscriptions.shared() as u64;
    publish_numbers(
        hub,
        [
            ("messages/stored", messages),
            ("store/messages/count", messages),
            (
                "store/messages/bytes",
                (waiting_bytes + hub.retained.bytes()) as u64,
            ),
            (
                "subscriptions/count",
                (hub.subscriptions.len() as u64).saturating_sub(shared),
            ),
            ("shared_subscriptions/count", shared),
            ("retained messages/count", retained as u64),
        ],
    );
}

/// What came and went since the start, and as averages.
fn publish_traffic(hub: &Hub, loads: &mut Loads) {
    let counts = &hub.counts;
    let sockets = value(&counts.sockets);
    publish_numbers(
        hub,
        [
            ("connections/socket/count", sockets),
            ("publish/bytes/received", value(&counts.publish_bytes_received)),
            ("publish/bytes/sent", value(&counts.publish_bytes_sent)),
        ],
    );
    for (total_name, load_name, total) in [
        ("", "sockets", sockets),
        ("", "connections", value(&counts.connects)),
        (
            "messages/received",
            "messages/received",
            value(&counts.packets_received),
        ),
        ("messages/sent", "messages/sent", value(&counts.packets_sent)),
        ("bytes/received", "bytes/received", value(&counts.bytes_received)),
        ("bytes/sent", "bytes/sent", value(&counts.bytes_sent)),
        (
            "publish/messages/received",
            "publish/received",
            value(&counts.publishes_received),
        ),
        (
            "publish/messages/sent",
            "publish/sent",
            value(&counts.publishes_sent),
        ),
        ("publish/messages/dropped", "publish/dropped", hub.quota.dropped()),
    ] {
        if !total_name.is_empty() {
            publish(hub, total_name, &total.to_string());
        }
        for (minutes, average) in PERIODS_MIN.iter().zip(loads.update(load_name, total)) {
            let name = format!("load/{load_name}/{minutes}min");
            publish(hub, &name, &format!("{average:.2}"));
        }
    }
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn publish_numbers<const N: usize>(hub: &Hub, numbers: [(&str, u64); N]) {
    for (name, number) in numbers {
        publish(hub, name, &number.to_string());
    }
}

/// Where the value has changed, as with Mosquitto. QoS 0: nothing of it waits for a client that sleeps.
fn publish(hub: &Hub, name: &str, value: &str) {
    let topic = format!("$SYS/broker/{name}");
    let last = hub.system.matching(&topic, 0);
    if last.first().is_some_and(|last| last.payload == value.as_bytes()) {
        return;
    }
    let message = Arc::new(Message {
        topic: Topic::from(topic.as_str()),
        payload: Bytes::copy_from_slice(value.as_bytes()),
        qos: 0,
        retain: false,
        properties: None,
        publisher: 0,
        expires_ms: None,
    });
    let _nothing_to_wait_for = hub.system.set(&message);
    hub.dispatch(&message);
}
