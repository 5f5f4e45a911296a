//! The one file that names rumqttd: its router, fed by one thread and read by another.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    Filter, Packet, Publish, PublishProperties, QoS, RetainForwardRule, Subscribe, SubscribeProperties,
};
use rumqttd::{Forward, Notification, Router, RouterConfig};

use super::queue::{Job, STUCK, Shared};
use crate::message::{Message, now_ms};
use crate::metrics;
use crate::tap::{Properties, Topic};

/// Router deaths after which the front goes on without it.
const MAX_RESTARTS: usize = 20;

/// One life of the router.
struct Link {
    life: usize,
    tx: LinkTx,
}

/// The feeder's thread: jobs to the router, and a new router where the last one died.
pub(super) fn feed(shared: &Arc<Shared>) {
    let mut link: Option<Link> = None;
    let mut lives = 0;
    while let Some(jobs) = shared.next_jobs() {
        if link.as_ref().is_some_and(|link| {
            jobs.iter()
                .any(|job| matches!(job, Job::Died(life) if *life == link.life))
        }) {
            link = None;
        }
        if link.is_none() {
            if lives > 0 {
                tracing::warn!(lives, "the fan-out router died; building the next one");
                metrics::router_restarted("died");
            }
            lives += 1;
            if lives > MAX_RESTARTS {
                tracing::error!(
                    lives,
                    "the fan-out router dies again and again; going on without it"
                );
                shared.available.store(false, Ordering::Release);
                return;
            }
            link = connect(shared, lives);
        }
        let sent = link.as_mut().is_some_and(|link| send(shared, link, jobs));
        if !sent {
            // What was under way is lost, as QoS 0 may be; the next life begins at once.
            link = None;
            shared.push(Job::Died(0));
        }
    }
}

/// Builds a router and gives it every filter; its reader runs in a thread of its own.
fn connect(shared: &Arc<Shared>, life: usize) -> Option<Link> {
    let config = RouterConfig {
        // Ours, and the next one after a duplicate.
        max_connections: 2,
        max_outgoing_packet_count: 200,
        max_segment_size: shared.config.log_bytes_per_filter / 2,
        max_segment_count: 2,
        ..RouterConfig::default()
    };
    let sender = Router::new(life, config).spawn();
    let (tx, rx, _connack) = LinkBuilder::new("shopfloor-front", sender).build().ok()?;
    let reader = Arc::clone(shared);
    let spawned = std::thread::Builder::new()
        .name("mqtt-fanout-read".to_owned())
        .spawn(move || read(&reader, rx, life));
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for the fan-out router's reader");
        return None;
    }
    shared.lock_queue().underway_bytes = 0;
    let filters = {
        let table = shared.table.read().unwrap_or_else(PoisonError::into_inner);
        table
            .by_filter
            .iter()
            .map(|(filter, slot)| Job::Subscribe(*slot, filter.clone()))
            .collect()
    };
    let mut link = Link { life, tx };
    send(shared, &mut link, filters).then_some(link)
}

/// Hands jobs to the router in one turn. False where it is dead.
fn send(shared: &Shared, link: &mut Link, jobs: Vec<Job>) -> bool {
    let mut packets = Vec::with_capacity(jobs.len());
    let mut bytes = 0;
    {
        let table = shared.table.read().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            match job {
                Job::Subscribe(slot, filter) => packets.push(subscribe(slot, filter)),
                Job::Publish(message) => {
                    bytes += message.bytes() * table.selecting(message.topic.as_str());
                    packets.push(publish(&message));
                }
                Job::Died(_) => {}
            }
        }
    }
    let Some(last) = packets.pop() else { return true };
    shared.lock_queue().underway_bytes += bytes;
    link.tx.buffer().extend(packets);
    // Its future never waits: it blocks while the router is busy, which is what this thread is for.
    matches!(link.tx.send(last).now_or_never(), Some(Ok(_)))
}

fn subscribe(slot: usize, filter: String) -> Packet {
    let filter = Filter {
        path: filter,
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let properties = SubscribeProperties {
        id: Some(slot),
        user_properties: Vec::new(),
    };
    Packet::Subscribe(
        Subscribe {
            pkid: 1,
            filters: vec![filter],
        },
        Some(properties),
    )
}

fn publish(message: &Message) -> Packet {
    let publish = Publish::new(message.topic.as_bytes().clone(), message.payload.clone(), false);
    let left_s = message.expiry_left_s(now_ms()).unwrap_or(Some(0));
    let properties = message.properties.as_ref().map(|properties| PublishProperties {
        payload_format_indicator: properties.payload_format_utf8.map(u8::from),
        message_expiry_interval: left_s,
        topic_alias: None,
        response_topic: properties.response_topic.clone(),
        correlation_data: properties.correlation_data.clone(),
        user_properties: properties.user.clone(),
        subscription_identifiers: Vec::new(),
        content_type: properties.content_type.clone(),
    });
    Packet::Publish(publish, properties)
}

/// The reader's thread: messages out of the router to their subscribers.
fn read(shared: &Shared, mut rx: LinkRx, life: usize) {
    loop {
        let deadline = Instant::now() + STUCK;
        match rx.recv_deadline(deadline) {
            Ok(Some(Notification::Forward(forward))) => forwarded(shared, forward),
            Ok(Some(Notification::Unschedule)) => {
                if rx.ready().is_err() {
                    return shared.push(Job::Died(life));
                }
            }
            Ok(_) => {}
            // Only a dead router fails before its time.
            Err(_) if Instant::now() < deadline => return shared.push(Job::Died(life)),
            Err(_) => {
                if shared.lock_queue().stop {
                    return;
                }
            }
        }
    }
}

fn forwarded(shared: &Shared, forward: Forward) {
    let Forward {
        publish, properties, ..
    } = forward;
    let slot = properties
        .as_ref()
        .and_then(|properties| properties.subscription_identifiers.last().copied());
    let message = message(Topic::from_checked(publish.topic), publish.payload, properties);
    shared.came_out(slot, message);
}

fn message(topic: Topic, payload: Bytes, properties: Option<PublishProperties>) -> Message {
    let expires_ms = properties
        .as_ref()
        .and_then(|properties| properties.message_expiry_interval)
        .map(|left_s| now_ms() + i64::from(left_s) * 1000);
    let properties = properties.map(|properties| {
        Box::new(Properties {
            content_type: properties.content_type,
            payload_format_utf8: properties.payload_format_indicator.map(|flag| flag == 1),
            message_expiry_s: None,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user: properties.user_properties,
        })
    });
    Message {
        topic,
        payload,
        qos: 0,
        retain: false,
        properties,
        publisher: 0,
        expires_ms,
    }
}
