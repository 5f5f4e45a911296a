//! What connections count as they go, for the `$SYS` topics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted by connections in passing, several packets at a time.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connected: AtomicU64,
    /// Connections whose listener's handshakes are done, CONNECT or not.
    pub(crate) sockets: AtomicU64,
    pub(crate) connects: AtomicU64,
    /// Sessions whose expiry has passed.
    pub(crate) expired: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) packets_received: AtomicU64,
    pub(crate) packets_sent: AtomicU64,
    pub(crate) publishes_received: AtomicU64,
    pub(crate) publish_bytes_received: AtomicU64,
    pub(crate) publishes_sent: AtomicU64,
    pub(crate) publish_bytes_sent: AtomicU64,
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
