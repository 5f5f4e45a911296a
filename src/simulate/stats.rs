//! What all machines count together while they run.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::ledger::Settled;
use super::payload::Kind;

const LATENCY_MAX_US: u64 = 24 * 3600 * 1_000_000;
const LATENCY_DIGITS: u8 = 3;

#[derive(Debug)]
pub(super) struct Stats {
    pub(super) machines: u16,
    published: AtomicU64,
    protobuf: AtomicU64,
    invalid: AtomicU64,
    acknowledged: AtomicU64,
    acknowledged_invalid: AtomicU64,
    refused: AtomicU64,
    connected: AtomicU64,
    connections: AtomicU64,
    latency_us: Mutex<Option<Histogram<u64>>>,
    trouble: Mutex<Option<String>>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) protobuf: u64,
    pub(super) invalid: u64,
    pub(super) acknowledged: u64,
    pub(super) acknowledged_invalid: u64,
    pub(super) refused: u64,
    /// Machines that have a connection now.
    pub(super) connected: u64,
    /// Connections that ever stood.
    pub(super) connections: u64,
}

/// From when a message was first given to its connection to its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Stats {
    pub(super) fn new(machines: u16) -> Self {
        let counter = || AtomicU64::new(0);
        Self {
            machines,
            published: counter(),
            protobuf: counter(),
            invalid: counter(),
            acknowledged: counter(),
            acknowledged_invalid: counter(),
            refused: counter(),
            connected: counter(),
            connections: counter(),
            latency_us: Mutex::new(Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS).ok()),
            trouble: Mutex::new(None),
        }
    }

    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        self.trouble(None);
    }

    pub(super) fn disconnected(&self) {
        self.connected.fetch_sub(1, Relaxed);
    }

    pub(super) fn ever_connected(&self) -> bool {
        self.connections.load(Relaxed) > 0
    }

    pub(super) fn published(&self, kind: Kind) {
        self.published.fetch_add(1, Relaxed);
        match kind {
            Kind::Json => {}
            Kind::Protobuf => drop(self.protobuf.fetch_add(1, Relaxed)),
            Kind::Invalid(_) => drop(self.invalid.fetch_add(1, Relaxed)),
        }
    }

    pub(super) fn acknowledged(&self, settled: &Settled) {
        self.acknowledged.fetch_add(1, Relaxed);
        self.acknowledged_invalid
            .fetch_add(u64::from(!settled.message.is_valid()), Relaxed);
        let us = u64::try_from(settled.latency.as_micros()).unwrap_or(LATENCY_MAX_US);
        let mut latency = self.latency_us.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latency) = latency.as_mut() {
            latency.saturating_record(us.max(1));
        }
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// What is wrong at the moment, for the progress line.
    pub(super) fn trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn last_trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            published: self.published.load(Relaxed),
            protobuf: self.protobuf.load(Relaxed),
            invalid: self.invalid.load(Relaxed),
            acknowledged: self.acknowledged.load(Relaxed),
            acknowledged_invalid: self.acknowledged_invalid.load(Relaxed),
            refused: self.refused.load(Relaxed),
            connected: self.connected.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }

    /// All 0 before the first acknowledgement.
    pub(super) fn latency(&self) -> Latency {
        let latency = self.latency_us.lock().unwrap_or_else(PoisonError::into_inner);
        latency.as_ref().map_or_else(Latency::default, |latency| Latency {
            p50: Duration::from_micros(latency.value_at_quantile(0.5)),
            p99: Duration::from_micros(latency.value_at_quantile(0.99)),
            max: Duration::from_micros(latency.max()),
        })
    }
}
