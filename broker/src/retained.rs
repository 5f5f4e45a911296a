//! The last retained message of every topic.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::RetainedConfig;
use crate::message::Message;
use crate::metrics;
use crate::persistence::{Change, Persistence, Ticket};
use crate::topics;

/// Retained messages in memory, within bounds: over them the new one is not retained (counted), the stored ones stay.
/// As many bytes may wait for the disk, of newer and newer messages of the same topics.
#[derive(Debug)]
pub(crate) struct Retained {
    inner: Mutex<Inner>,
    /// `None` where nothing survives the process.
    persistence: Option<Arc<Persistence>>,
    config: RetainedConfig,
}

#[derive(Debug, Default)]
struct Inner {
    by_topic: BTreeMap<String, Arc<Message>>,
    bytes: usize,
}

impl Inner {
    /// False where nothing has changed.
    fn set(&mut self, message: &Arc<Message>, config: &RetainedConfig) -> bool {
        let topic = message.topic.as_str();
        let before = self.by_topic.get(topic).map(|message| message.bytes());
        if message.payload.is_empty() {
            self.bytes -= before.unwrap_or(0);
            return self.by_topic.remove(topic).is_some();
        }
        let bytes = self.bytes - before.unwrap_or(0) + message.bytes();
        let messages = self.by_topic.len() + usize::from(before.is_none());
        if bytes > config.max_bytes || messages > config.max_messages {
            metrics::dropped("retained_full");
            return false;
        }
        self.bytes = bytes;
        self.by_topic.insert(topic.to_owned(), Arc::clone(message));
        true
    }
}

impl Retained {
    pub(crate) fn new(config: RetainedConfig, persistence: Option<Arc<Persistence>>) -> Self {
        Self {
            inner: Mutex::default(),
            persistence,
            config,
        }
    }

    /// Takes the place of the topic's last one; an empty payload removes it. Gives the ticket of what is kept.
    pub(crate) fn set(&self, message: &Arc<Message>) -> Option<Ticket> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = self.persistence.as_ref().map_or(0, |kept| kept.retained_bytes());
        if unwritten > self.config.max_bytes && !message.payload.is_empty() {
            metrics::dropped("retained_full");
            return None;
        }
        if !inner.set(message, &self.config) {
            return None;
        }
        // Under the lock: the database sees the changes of a topic in their order.
        let change = Change::Retain(Arc::clone(message));
        Some(self.persistence.as_ref()?.submit(change))
    }

    /// What a restart has found, within the bounds.
    pub(crate) fn restore(&self, messages: Vec<Message>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            inner.set(&Arc::new(message), &self.config);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.by_topic.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes
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
        let retained = Retained::new(RetainedConfig::default(), None);
        for topic in ["a", "a/b", "a/b/c", "ab", "$SYS/x", "b"] {
            retained.set(&message(topic, "1", None));
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "#"), ["a", "a/b", "a/b/c", "ab", "b"]);
        assert_eq!(topics(&retained, "+/b"), ["a/b"]);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/x"]);
        assert_eq!(topics(&retained, "a/b"), ["a/b"]);
        retained.set(&message("a/b", "", None));
        assert_eq!(topics(&retained, "a/+"), Vec::<String>::new());
    }

    #[test]
    fn over_the_bound_the_stored_ones_stay_and_can_still_be_replaced() {
        let config = RetainedConfig {
            max_messages: 1,
            max_bytes: 100,
        };
        let retained = Retained::new(config, None);
        for (topic, payload) in [("a", "1"), ("b", "1"), ("a", "2")] {
            retained.set(&message(topic, payload, None));
            assert_eq!(retained.len(), 1);
        }
        assert_eq!(retained.matching("#", 0)[0].payload, "2");
    }

    #[test]
    fn an_expired_message_is_not_found() {
        let retained = Retained::new(RetainedConfig::default(), None);
        retained.set(&message("a", "1", Some(1000)));
        retained.set(&message("b", "1", Some(1001)));
        assert_eq!(topics(&retained, "#"), ["b"]);
    }
}
