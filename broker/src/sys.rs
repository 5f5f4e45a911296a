//! `$SYS`: what the front counts, as retained messages under the names that Mosquitto gives them, for tools that
//! look there. They pass neither the store nor the sinks, and `#` does not select them.
//!
//! - [`Counts`]: what connections count as they go.
//! - [`run`]: publishes what has changed, at an interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::RetainedConfig;
use crate::hub::Hub;
use crate::message::Message;
use crate::retained::Retained;
use crate::tap::Topic;

/// Far above the number of topics below.
const MAX_TOPICS: usize = 256;

/// Counted by connections in passing, several packets at a time.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connected: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) packets_received: AtomicU64,
    pub(crate) packets_sent: AtomicU64,
    pub(crate) publishes_received: AtomicU64,
    pub(crate) publish_bytes_received: AtomicU64,
    pub(crate) publishes_sent: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// A client has come.
    pub(crate) fn connect(&self) {
        Self::add(&self.connects, 1);
        Self::add(&self.connected, 1);
        // Its CONNECT, which the handshake took.
        Self::add(&self.packets_received, 1);
    }

    pub(crate) fn disconnect(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The topics' last values, and what they are made of.
#[derive(Debug)]
pub(crate) struct Sys {
    pub(crate) counts: Counts,
    retained: Retained,
}

impl Sys {
    pub(crate) fn new() -> Self {
        let limits = RetainedConfig {
            max_messages: MAX_TOPICS,
            ..RetainedConfig::default()
        };
        Self {
            counts: Counts::default(),
            // Made anew with each start.
            retained: Retained::new(limits, None),
        }
    }

    /// Those that a new subscription selects.
    pub(crate) fn matching(&self, filter: &str) -> Vec<Arc<Message>> {
        if filter.starts_with("$SYS") {
            self.retained.matching(filter, 0)
        } else {
            Vec::new()
        }
    }
}

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
        let connected = hub.sys.counts.connected.load(Ordering::Relaxed);
        most_connected = most_connected.max(connected);
        publish(
            &hub,
            "uptime",
            &format!("{} seconds", started.elapsed().as_secs()),
        );
        publish_totals(&hub, connected, most_connected);
        loads.update(&hub.sys.counts);
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
    let counts = &hub.sys.counts;
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
    let last = hub.sys.retained.matching(&topic, 0);
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
    let _nothing_to_wait_for = hub.sys.retained.set(&message);
    hub.dispatch(&message);
}

const PERIODS_MIN: [u32; 3] = [1, 5, 15];

/// What happened a minute, smoothed exponentially over each period, like a system's load.
#[derive(Debug)]
struct Loads {
    interval: Duration,
    loads: [Load; 7],
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    total: u64,
    averages: [f64; 3],
}

const LOAD_NAMES: [&str; 7] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "connections",
];

impl Loads {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            loads: [Load::default(); 7],
        }
    }

    fn update(&mut self, counts: &Counts) {
        let totals = [
            &counts.packets_received,
            &counts.packets_sent,
            &counts.publishes_received,
            &counts.publishes_sent,
            &counts.bytes_received,
            &counts.bytes_sent,
            &counts.connects,
        ];
        for (load, total) in self.loads.iter_mut().zip(totals) {
            load.update(total.load(Ordering::Relaxed), self.interval);
        }
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, [f64; 3])> {
        LOAD_NAMES
            .into_iter()
            .zip(self.loads.iter().map(|load| load.averages))
    }
}

impl Load {
    fn update(&mut self, total: u64, interval: Duration) {
        let minutes = interval.as_secs_f64() / 60.0;
        let a_minute = total.saturating_sub(self.total) as f64 / minutes;
        self.total = total;
        for (average, period) in self.averages.iter_mut().zip(PERIODS_MIN) {
            let kept = (-minutes / f64::from(period)).exp();
            *average = a_minute + kept * (*average - a_minute);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_becomes_the_average_and_the_short_period_first() {
        let (mut load, interval) = (Load::default(), Duration::from_secs(10));
        for tick in 1..=6 {
            load.update(tick * 100, interval);
        }
        let [one, five, fifteen] = load.averages;
        assert!(
            600.0 > one && one > five && five > fifteen && fifteen > 0.0,
            "{load:?}"
        );
        for tick in 7..=1000 {
            load.update(tick * 100, interval);
        }
        assert!(
            load.averages
                .iter()
                .all(|average| (599.0..=600.0).contains(average)),
            "{load:?}"
        );
    }
}
