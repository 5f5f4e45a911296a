//! `$SYS`: what the front counts, as retained messages under the names that Mosquitto gives them, for tools that
//! look there. They pass neither the store nor the sinks, and `#` does not select them.
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
        let connected = hub.counts.connected.load(Ordering::Relaxed);
        most_connected = most_connected.max(connected);
        publish(
            &hub,
            "uptime",
            &format!("{} seconds", started.elapsed().as_secs()),
        );
        publish_totals(&hub, connected, most_connected);
        loads.update(&hub.counts);
        for (name, averages) in loads.named() {
            for (minutes, average) in PERIODS_MIN.iter().zip(averages) {
                publish(
                    &hub,
                    &format!("load/{name}/{minutes}min"),
                    &format!("{average:.2}"),
                );
            }
        }
    }
}

fn publish_totals(hub: &Hub, connected: u64, most_connected: u64) {
    let counts = &hub.counts;
    let sessions = hub.registry.len() as u64;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, value) in [
        ("clients/total", sessions),
        ("clients/connected", connected),
        ("clients/disconnected", sessions.saturating_sub(connected)),
        ("clients/maximum", most_connected),
        ("messages/received", of(&counts.packets_received)),
        ("messages/sent", of(&counts.packets_sent)),
        ("bytes/received", of(&counts.bytes_received)),
        ("bytes/sent", of(&counts.bytes_sent)),
        ("publish/messages/received", of(&counts.publishes_received)),
        ("publish/messages/sent", of(&counts.publishes_sent)),
        ("publish/bytes/received", of(&counts.publish_bytes_received)),
        ("subscriptions/count", hub.subscriptions.len() as u64),
        ("retained messages/count", hub.retained.len() as u64),
    ] {
        publish(hub, name, &value.to_string());
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
