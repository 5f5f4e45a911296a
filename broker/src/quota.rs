//! What all sessions together may hold, in memory and on disk: messages that wait or are under way to subscribers,
//! subscriptions, wills, open QoS 2 exchanges.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use metrics::Gauge;

use crate::metrics::session_bytes;

/// The gauge follows in steps of this.
const GAUGE_STEP_BYTES: usize = 64 * 1024;

/// The bound over all sessions.
#[derive(Debug)]
pub(crate) struct Quota {
    max_bytes: usize,
    used_bytes: AtomicUsize,
    dropped: AtomicU64,
    gauge: Gauge,
}

/// What one holder has of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    bytes: usize,
    /// Where it is beyond the bound, for whoever allowed that once.
    _beyond: Option<Arc<()>>,
}

impl Quota {
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            used_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            gauge: session_bytes(),
        })
    }

    /// An empty share.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share {
            quota: Arc::clone(self),
            bytes: 0,
            _beyond: None,
        }
    }

    /// A share for a session that sleeps: such sessions may fill three quarters, so that those who are connected
    /// still have room.
    pub(crate) fn share_asleep(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let mut share = self.share();
        share.grow_to(bytes, self.max_bytes / 4 * 3).then_some(share)
    }

    /// For what is there already, or is little and bounded otherwise.
    pub(crate) fn share_anyway(self: &Arc<Self>, bytes: usize) -> Share {
        let mut share = self.share();
        share.grow_anyway(bytes);
        share
    }

    /// For a copy beyond the bound; what comes with the share is alive as long as that is.
    pub(crate) fn share_beyond(self: &Arc<Self>, bytes: usize) -> (Share, Weak<()>) {
        let beyond = Arc::new(());
        let alive = Arc::downgrade(&beyond);
        let mut share = Share {
            quota: Arc::clone(self),
            bytes: 0,
            _beyond: Some(beyond),
        };
        share.grow_anyway(bytes);
        (share, alive)
    }

    /// A message found no room in a session, or in all of them together.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages that found no room, since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        let before = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.show(before, before + bytes);
    }

    fn show(&self, before: usize, after: usize) {
        if before / GAUGE_STEP_BYTES != after / GAUGE_STEP_BYTES {
            self.gauge.set(after as f64);
        }
    }
}

impl Share {
    /// False where there is no room.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.grow_to(bytes, self.quota.max_bytes)
    }

    fn grow_to(&mut self, bytes: usize, max_bytes: usize) -> bool {
        let grown = self
            .quota
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= max_bytes)
            });
        let Ok(before) = grown else { return false };
        self.quota.show(before, before + bytes);
        self.bytes += bytes;
        true
    }

    /// For what is there already, or is little and bounded otherwise.
    pub(crate) fn grow_anyway(&mut self, bytes: usize) {
        self.quota.add(bytes);
        self.bytes += bytes;
    }

    /// Takes over what another one has.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let before = self.quota.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.quota.show(before, before.saturating_sub(bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_never_exceed_it_and_give_back_what_they_had() {
        let quota = Quota::new(100);
        let (mut one, mut two) = (quota.share(), quota.share());
        assert!(one.grow(60));
        assert!(!two.grow(41));
        assert!(two.grow(40));
        one.shrink(10);
        assert!(two.grow(10));
        drop(two);
        assert!(one.grow(50));
        drop(one);
        assert_eq!(quota.used_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn sessions_that_sleep_leave_a_quarter_to_those_who_are_connected() {
        let quota = Quota::new(100);
        let _asleep = quota.share_asleep(75).unwrap();
        assert!(quota.share_asleep(1).is_none());
        assert!(quota.share().grow(25));
    }
}
