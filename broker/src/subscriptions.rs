//! The tree of subscriptions: who gets a message of this topic.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::codec::SubscribeOptions;
use crate::session::Session;
use crate::topics;

/// All subscriptions of all sessions. Looking a topic up costs its levels, not the number of subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    root: RwLock<Node>,
    count: AtomicUsize,
    /// Of them, those of a share.
    shared: AtomicUsize,
    /// Changes with every change, so that a connection can remember what it found for its last topic.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Node {
    /// By level; `+` and `#` are levels like others here.
    children: HashMap<Box<str>, Node>,
    plain: Vec<Subscription>,
    groups: Vec<Group>,
}

/// One session's subscription to one filter.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) session: Arc<Session>,
    pub(crate) options: SubscribeOptions,
    pub(crate) id: Option<u32>,
}

/// Members that are asked for one message: a group of thousands that all sleep must not hold up a publisher.
const MAX_TURNS: usize = 1000;

/// The sessions that share one filter under one name: each message goes to one of them.
#[derive(Debug)]
struct Group {
    name: Box<str>,
    members: Vec<Subscription>,
    next: AtomicUsize,
}

impl Subscriptions {
    /// Adds or replaces; true where the session had none for this filter. `filter` is valid.
    pub(crate) fn insert(&self, filter: &str, subscription: Subscription) -> bool {
        let Some((group, filter)) = topics::split_share(filter) else {
            return false;
        };
        let mut root = self.root.write().unwrap_or_else(PoisonError::into_inner);
        let mut node = &mut *root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        let members = match group {
            None => &mut node.plain,
            Some(name) => node.group(name),
        };
        let found = members
            .iter_mut()
            .find(|member| member.session.key == subscription.session.key);
        let new = found.is_none();
        match found {
            Some(member) => *member = subscription,
            None => members.push(subscription),
        }
        self.generation.fetch_add(1, Ordering::Release);
        self.count.fetch_add(usize::from(new), Ordering::Release);
        self.shared
            .fetch_add(usize::from(new && group.is_some()), Ordering::Release);
        new
    }

    /// Removes; false where there was none.
    pub(crate) fn remove(&self, filter: &str, session_key: u64) -> bool {
        let Some((group, filter)) = topics::split_share(filter) else {
            return false;
        };
        let mut root = self.root.write().unwrap_or_else(PoisonError::into_inner);
        let removed = root.remove(filter.split('/'), group, session_key);
        self.generation.fetch_add(1, Ordering::Release);
        self.count.fetch_sub(usize::from(removed), Ordering::Release);
        self.shared
            .fetch_sub(usize::from(removed && group.is_some()), Ordering::Release);
        removed
    }

    /// Without a subscription anywhere, a publish costs this one load.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn shared(&self) -> usize {
        self.shared.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether any subscription selects `topic`.
    pub(crate) fn any(&self, topic: &str) -> bool {
        let mut any = false;
        let root = self.root.read().unwrap_or_else(PoisonError::into_inner);
        root.walk(topic, topic.starts_with('$'), &mut |_node| any = true);
        any
    }

    /// Calls `found` with every subscription that selects `topic`, and one member of every shared one (then with
    /// true). A session comes once for each of its filters.
    pub(crate) fn each(&self, topic: &str, mut found: impl FnMut(&Subscription, bool)) {
        let root = self.root.read().unwrap_or_else(PoisonError::into_inner);
        root.walk(topic, topic.starts_with('$'), &mut |node| {
            node.plain
                .iter()
                .for_each(|subscription| found(subscription, false));
            node.groups
                .iter()
                .filter_map(Group::choose)
                .for_each(|subscription| found(subscription, true));
        });
    }
}

impl Node {
    fn group(&mut self, name: &str) -> &mut Vec<Subscription> {
        let at = self
            .groups
            .iter()
            .position(|group| &*group.name == name)
            .unwrap_or_else(|| {
                self.groups.push(Group {
                    name: name.into(),
                    members: Vec::new(),
                    next: AtomicUsize::new(0),
                });
                self.groups.len() - 1
            });
        #[allow(clippy::indexing_slicing)] // found or pushed just above
        &mut self.groups[at].members
    }

    fn remove<'a>(
        &mut self,
        mut levels: impl Iterator<Item = &'a str>,
        group: Option<&str>,
        session_key: u64,
    ) -> bool {
        let Some(level) = levels.next() else {
            return self.remove_here(group, session_key);
        };
        let Some(child) = self.children.get_mut(level) else {
            return false;
        };
        let removed = child.remove(levels, group, session_key);
        if child.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    fn remove_here(&mut self, group: Option<&str>, session_key: u64) -> bool {
        let take = |members: &mut Vec<Subscription>| {
            let at = members
                .iter()
                .position(|member| member.session.key == session_key)?;
            Some(members.remove(at))
        };
        match group {
            None => take(&mut self.plain).is_some(),
            Some(name) => {
                let Some(at) = self.groups.iter().position(|group| &*group.name == name) else {
                    return false;
                };
                let Some(group) = self.groups.get_mut(at) else {
                    return false;
                };
                let removed = take(&mut group.members).is_some();
                if group.members.is_empty() {
                    self.groups.remove(at);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plain.is_empty() && self.groups.is_empty()
    }

    fn has_subscriptions(&self) -> bool {
        !self.plain.is_empty() || !self.groups.is_empty()
    }

    /// Visits every node whose filter selects the topic of which `rest` is left. Depth is bounded by the topic's
    /// levels, which are limited.
    fn walk(&self, rest: &str, no_wildcard: bool, visit: &mut impl FnMut(&Node)) {
        if !no_wildcard && let Some(all) = self.children.get("#") {
            visit_if_used(all, visit);
        }
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let any = if no_wildcard { None } else { self.children.get("+") };
        for node in [self.children.get(level), any].into_iter().flatten() {
            match rest {
                Some(rest) => node.walk(rest, false, visit),
                None => {
                    visit_if_used(node, visit);
                    // "a/#" selects "a" too.
                    if let Some(all) = node.children.get("#") {
                        visit_if_used(all, visit);
                    }
                }
            }
        }
    }
}

fn visit_if_used(node: &Node, visit: &mut impl FnMut(&Node)) {
    if node.has_subscriptions() {
        visit(node);
    }
}

impl Group {
    /// The next member in turn that takes messages; where none does, the next one keeps it.
    fn choose(&self) -> Option<&Subscription> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |offset: usize| {
            self.members
                .get(start.wrapping_add(offset) % self.members.len().max(1))
        };
        (0..self.members.len().min(MAX_TURNS))
            .filter_map(turn)
            .find(|member| member.session.mailbox.takes_more())
            .or_else(|| turn(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::SessionConfig;
    use crate::quota::Quota;

    fn session(key: u64) -> Arc<Session> {
        Arc::new(Session::new(
            key,
            format!("client-{key}"),
            &SessionConfig::default(),
            &Quota::new(usize::MAX),
        ))
    }

    fn subscription(session: &Arc<Session>) -> Subscription {
        Subscription {
            session: Arc::clone(session),
            options: SubscribeOptions::default(),
            id: None,
        }
    }

    fn found(subscriptions: &Subscriptions, topic: &str) -> Vec<u64> {
        let mut keys = Vec::new();
        subscriptions.each(topic, |subscription, _shared| keys.push(subscription.session.key));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn groups_of_the_same_name_on_two_filters_are_two_groups() {
        let subscriptions = Subscriptions::default();
        let (one, two) = (session(1), session(2));
        subscriptions.insert("$share/g/a", subscription(&one));
        subscriptions.insert("$share/g/b", subscription(&two));
        assert_eq!(found(&subscriptions, "a"), [1]);
        assert_eq!(found(&subscriptions, "b"), [2]);
    }

    #[test]
    fn a_shared_message_goes_to_one_member_in_turn_and_past_those_that_sleep() {
        let subscriptions = Subscriptions::default();
        let members = [session(1), session(2), session(3)];
        for member in &members {
            subscriptions.insert("$share/g/a/+", subscription(member));
        }
        for awake in [1, 3] {
            let mailbox = &members[awake - 1].mailbox;
            assert!(mailbox.attach(mailbox.claim(), true));
        }
        let turns = (0..6)
            .flat_map(|_| found(&subscriptions, "a/b"))
            .collect::<Vec<_>>();
        assert!(
            !turns.contains(&2) && turns.contains(&1) && turns.contains(&3),
            "{turns:?}"
        );
        assert_eq!(turns.len(), 6);
    }

    #[test]
    fn nothing_is_left_of_what_was_removed() {
        let subscriptions = Subscriptions::default();
        let one = session(1);
        for filter in ["a/b/#", "$share/g/a/b", "+"] {
            assert!(subscriptions.insert(filter, subscription(&one)));
            assert!(
                !subscriptions.insert(filter, subscription(&one)),
                "a second time is no new one"
            );
        }
        for filter in ["a/b/#", "$share/g/a/b", "+"] {
            assert!(subscriptions.remove(filter, 1));
            assert!(!subscriptions.remove(filter, 1));
        }
        assert!(subscriptions.is_empty() && subscriptions.root.read().unwrap().is_empty());
    }

    fn topic_like(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(levels), 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_matching_one_by_one_finds(
            filters in proptest::collection::vec(topic_like(&["a", "b", "", "+", "#", "$SYS"]), 0..12),
            topic in topic_like(&["a", "b", "", "$SYS"]),
        ) {
            let subscriptions = Subscriptions::default();
            let mut expected = Vec::new();
            for (key, filter) in (0..).zip(filters.iter().filter(|filter| topics::is_filter(filter))) {
                subscriptions.insert(filter, subscription(&session(key)));
                if topics::matches(filter, &topic) {
                    expected.push(key);
                }
            }
            prop_assert_eq!(subscriptions.any(&topic), !expected.is_empty());
            prop_assert_eq!(found(&subscriptions, &topic), expected);
        }
    }
}
