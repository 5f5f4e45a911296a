//! Who gets what comes out of the router.

use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::sync::Arc;

use crate::session::Session;
use crate::topics;

/// Who gets what comes out of the router.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The number of a filter is the subscription identifier that the router gives back with each message.
    pub(super) by_filter: HashMap<String, usize>,
    pub(super) slots: Vec<Slot>,
    /// Hashes of the topics that the router knows.
    pub(super) topics: HashSet<u64>,
    pub(super) hasher: RandomState,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) readers: Vec<Arc<Carried>>,
}

/// A session all of whose subscriptions the router carries.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) session: Arc<Session>,
    pub(super) filters: Vec<(usize, String, Option<u32>)>,
}

impl Table {
    pub(super) fn has_room<'a>(&self, filters: impl Iterator<Item = &'a String>, max_filters: usize) -> bool {
        let new = filters
            .filter(|filter| !self.by_filter.contains_key(*filter))
            .count();
        self.by_filter.len() + new <= max_filters
    }

    pub(super) fn add(&mut self, filter: &str) -> usize {
        // The router takes 0 for no identifier: the first slot is never used.
        if self.slots.is_empty() {
            self.slots.push(Slot::default());
        }
        self.slots.push(Slot::default());
        self.by_filter.insert(filter.to_owned(), self.slots.len() - 1);
        self.slots.len() - 1
    }

    pub(super) fn selecting(&self, topic: &str) -> usize {
        self.by_filter
            .keys()
            .filter(|filter| topics::matches(filter, topic))
            .count()
    }
}

impl Carried {
    /// A topic that several filters of one session select comes out of the router once for each: the first of
    /// them delivers it, with the identifiers of all. `None` where another one does.
    pub(super) fn ids_through(&self, number: usize, topic: &str) -> Option<Vec<u32>> {
        if let [(_, _, id)] = self.filters.as_slice() {
            return Some(id.iter().copied().collect());
        }
        let mut matching = self
            .filters
            .iter()
            .filter(|(_, filter, _)| topics::matches(filter, topic))
            .peekable();
        let first = matching.peek().is_some_and(|(slot, _, _)| *slot == number);
        first.then(|| matching.filter_map(|(_, _, id)| *id).collect())
    }
}
