//! The last retained message of every topic.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::RetainedConfig;
use crate::message::Message;
use crate::metrics;
use crate::topics;

/// Retained messages in memory, within bounds: over them the new one is not retained (counted), the stored ones stay.
#[derive(Debug)]
pub(crate) struct Retained {
    inner: Mutex<Inner>,
    config: RetainedConfig,
}

#[derive(Debug, Default)]
struct Inner {
    by_topic: BTreeMap<String, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    pub(crate) fn new(config: RetainedConfig) -> Self {
        Self {
            inner: Mutex::default(),
            config,
        }
    }

    /// Takes the place of the topic's last one; an empty payload removes it. Gives the number retained.
    pub(crate) fn set(&self, message: Arc<Message>) -> usize {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = message.topic.as_str();
        let before = inner.by_topic.get(topic).map(|message| message.bytes());
        if message.payload.is_empty() {
            inner.by_topic.remove(topic);
            inner.bytes -= before.unwrap_or(0);
            return inner.by_topic.len();
        }
        let bytes = inner.bytes - before.unwrap_or(0) + message.bytes();
        let messages = inner.by_topic.len() + usize::from(before.is_none());
        if bytes > self.config.max_bytes || messages > self.config.max_messages {
            metrics::dropped("retained_full");
        } else {
            inner.bytes = bytes;
            inner.by_topic.insert(topic.to_owned(), message);
        }
        inner.by_topic.len()
    }

    /// Those that `filter` selects, in the order of their topics.
    pub(crate) fn matching(&self, filter: &str, now_ms: i64) -> Vec<Arc<Message>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let literal = filter.split(['+', '#']).next().unwrap_or_default();
        if literal.len() == filter.len() {
            let live = |message: &&Arc<Message>| message.expiry_left_s(now_ms).is_ok();
            return inner
                .by_topic
                .get(filter)
                .filter(live)
                .cloned()
                .into_iter()
                .collect();
        }
        // "a/#" selects "a" too, so the range starts without the separator.
        let prefix = literal.strip_suffix('/').unwrap_or(literal);
        inner
            .by_topic
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .filter(|(topic, message)| {
                topics::matches(filter, topic) && message.expiry_left_s(now_ms).is_ok()
            })
            .map(|(_, message)| Arc::clone(message))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tap::Topic;

    fn message(topic: &str, payload: &'static str, expires_ms: Option<i64>) -> Arc<Message> {
        Arc::new(Message {
            topic: Topic::from(topic),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: 1,
            retain: true,
            properties: None,
            publisher: 0,
            expires_ms,
        })
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        retained
            .matching(filter, 1000)
            .iter()
            .map(|message| message.topic.as_str().to_owned())
            .collect()
    }

    #[test]
    fn a_subscription_finds_what_its_filter_selects_and_an_empty_payload_removes() {
        let retained = Retained::new(RetainedConfig::default());
        for topic in ["a", "a/b", "a/b/c", "ab", "$SYS/x", "b"] {
            retained.set(message(topic, "1", None));
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "#"), ["a", "a/b", "a/b/c", "ab", "b"]);
        assert_eq!(topics(&retained, "+/b"), ["a/b"]);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/x"]);
        assert_eq!(topics(&retained, "a/b"), ["a/b"]);
        retained.set(message("a/b", "", None));
        assert_eq!(topics(&retained, "a/+"), Vec::<String>::new());
    }

    #[test]
    fn over_the_bound_the_stored_ones_stay_and_can_still_be_replaced() {
        let retained = Retained::new(RetainedConfig {
            max_messages: 1,
            max_bytes: 100,
        });
        assert_eq!(retained.set(message("a", "1", None)), 1);
        assert_eq!(retained.set(message("b", "1", None)), 1);
        assert_eq!(retained.set(message("a", "2", None)), 1);
        assert_eq!(retained.matching("#", 0)[0].payload, "2");
    }

    #[test]
    fn an_expired_message_is_not_found() {
        let retained = Retained::new(RetainedConfig::default());
        retained.set(message("a", "1", Some(1000)));
        retained.set(message("b", "1", Some(1001)));
        assert_eq!(topics(&retained, "#"), ["b"]);
    }
}
