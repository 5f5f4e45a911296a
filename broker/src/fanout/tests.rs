//! Through the real router.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::queue::MAX_TOPICS;
use super::*;
use crate::codec::SubscribeOptions;
use crate::config::SessionConfig;
use crate::quota::Quota;
use crate::tap::Topic;

fn reader(fanout: &Fanout, key: u64, filters: &[(&str, u32)]) -> Arc<Session> {
    let session = Arc::new(Session::new(
        key,
        format!("reader-{key}"),
        &SessionConfig::default(),
        &Quota::new(usize::MAX),
    ));
    assert!(session.mailbox.attach(session.mailbox.claim(), true));
    let subscribed = filters
        .iter()
        .map(|(filter, id)| {
            (
                (*filter).to_owned(),
                Subscribed {
                    options: SubscribeOptions::default(),
                    id: Some(*id),
                },
            )
        })
        .collect();
    fanout.update(&session, &subscribed);
    session
}

fn message(topic: &str, payload: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: Topic::from(topic),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: 0,
        retain: false,
        properties: None,
        publisher: 0,
        expires_ms: None,
    })
}

/// Deliveries as payload and identifiers, once `count` are there.
fn delivered(session: &Session, count: usize) -> Vec<(String, Vec<u32>)> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut found = Vec::new();
    while found.len() < count {
        assert!(
            Instant::now() < deadline,
            "only {} of {count} were delivered",
            found.len()
        );
        match session.mailbox.pop() {
            Some(delivery) => {
                let payload = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
                found.push((payload, delivery.subscription_ids));
            }
            None => std::thread::yield_now(),
        }
    }
    found
}

#[test]
fn every_subscriber_gets_every_message_once_and_in_order_however_its_filters_overlap() {
    let fanout = Fanout::new(FanoutConfig::default());
    let all = reader(&fanout, 1, &[("#", 7)]);
    let both = reader(&fanout, 2, &[("a/+", 1), ("a/#", 2), ("b/#", 3)]);
    for number in 0..10_000 {
        fanout.publish(message("a/x", &number.to_string()));
    }
    for (session, ids) in [(&all, vec![7]), (&both, vec![2, 1])] {
        let got = delivered(session, 10_000);
        assert!(
            got.iter()
                .map(|(payload, _)| payload.clone())
                .eq((0..10_000).map(|n| n.to_string()))
        );
        assert!(
            got.iter()
                .all(|(_, got)| got.iter().all(|id| ids.contains(id)) && got.len() == ids.len())
        );
    }
}

#[test]
fn the_death_of_the_router_costs_no_subscription() {
    let fanout = Fanout::new(FanoutConfig::default());
    let all = reader(&fanout, 1, &[("#", 7)]);
    fanout.publish(message("a", "before"));
    assert_eq!(delivered(&all, 1)[0].0, "before");
    for life in 0..3 {
        // What `takes` keeps away from it.
        fanout.publish(message("\u{fc}ber", "poison"));
        let after = format!("after {life}");
        let deadline = Instant::now() + Duration::from_secs(10);
        let got = loop {
            fanout.publish(message("a", &after));
            if let Some(delivery) = all.mailbox.pop() {
                break delivery;
            }
            assert!(Instant::now() < deadline, "nothing came after death {life}");
            std::thread::yield_now();
        };
        assert_eq!(got.message.topic.as_str(), "a");
        while all.mailbox.pop().is_some() {}
    }
}

#[test]
fn only_what_the_router_survives_and_does_right_goes_through_it() {
    let fanout = Fanout::new(FanoutConfig::default());
    assert!(fanout.takes(&message("a", "")));
    assert!(
        !fanout.takes(&message("\u{fc}ber", "")),
        "it dies of a non-ASCII first character"
    );
    assert!(!fanout.takes(&message("$SYS/a", "")), "it never matches these");
    let mut retained = Arc::into_inner(message("a", "")).unwrap();
    retained.retain = true;
    assert!(!fanout.takes(&retained));
    let mut qos_1 = Arc::into_inner(message("a", "")).unwrap();
    qos_1.qos = 1;
    assert!(!fanout.takes(&qos_1));
    for (filters, carried) in [
        (&["a/#"][..], true),
        (&["a"], false),
        (&["a/#", "b"], false),
        (&["$share/g/#"], false),
        (&["$SYS/#"], false),
    ] {
        let filters = filters.iter().map(|filter| (*filter, 1)).collect::<Vec<_>>();
        let session = reader(&fanout, 9, &filters);
        assert_eq!(session.carried.load(Ordering::Acquire), carried, "{filters:?}");
    }
}

#[test]
fn filters_and_topics_over_the_bounds_are_left_to_the_front() {
    let fanout = Fanout::new(FanoutConfig {
        max_filters: 2,
        ..FanoutConfig::default()
    });
    for (key, filter, carried) in [
        (1, "a/#", true),
        (2, "b/#", true),
        (3, "c/#", false),
        (4, "a/#", true),
    ] {
        let session = reader(&fanout, key, &[(filter, 1)]);
        assert_eq!(session.carried.load(Ordering::Acquire), carried, "{filter}");
    }
    for number in 0..MAX_TOPICS {
        assert!(fanout.takes(&message(&format!("a/{number}"), "")));
    }
    assert!(!fanout.takes(&message("a/new", "")));
    assert!(fanout.takes(&message("a/1", "")));
}
