//! What the handles, the writer thread and the keeper thread hold in common.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tokio::sync::watch;

use super::catalog::Catalog;
use super::config::SpoolConfig;
use super::cursor_file::{self, CursorState};
use super::error::SpoolError;
use super::filesystem::Filesystem;
use super::format::NAME_MAX_BYTES;
use super::hot::Hot;
use super::mutex::lock;
use super::queue::Queue;
use super::recovery::{self, Recovery};

/// Locks are taken in the order of the fields where more than one is held.
#[derive(Debug)]
pub(super) struct Shared {
    pub fs: Arc<dyn Filesystem>,
    pub dir: PathBuf,
    pub gateway_id: String,
    pub config: SpoolConfig,
    pub recovery: Recovery,
    pub cursors: Mutex<Vec<Arc<CursorState>>>,
    pub catalog: Mutex<Catalog>,
    pub hot: Mutex<Hot>,
    pub queue: Queue,
    pub durable: watch::Sender<Durable>,
    pub fault: Mutex<Option<SpoolError>>,
    pub counters: Counters,
    keeper: Mutex<KeeperSignal>,
    keeper_wakes: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Durable {
    /// Everything before it can be read.
    pub end_sequence: u64,
    /// False when it will not grow any more.
    pub open: bool,
}

/// Totals since the spool was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub commits: AtomicU64,
    pub entries: AtomicU64,
    pub bytes: AtomicU64,
    pub failures: AtomicU64,
    pub store_us: AtomicU64,
}

#[derive(Debug, Default)]
struct KeeperSignal {
    woken: bool,
    stopped: bool,
}

impl Shared {
    /// Recovers what is in `dir`, which the caller has locked.
    pub(super) fn recover(
        fs: Arc<dyn Filesystem>,
        dir: &Path,
        gateway_id: &str,
        config: SpoolConfig,
    ) -> Result<Self, SpoolError> {
        let mut recovered = recovery::recover(&*fs, dir, gateway_id, &config)?;
        let next_sequence = recovered.report.next_sequence;
        let oldest = recovered.catalog.first_sequence().unwrap_or(next_sequence);
        let mut cursors = Vec::new();
        for file in fs
            .list(dir)
            .map_err(|source| SpoolError::io("list", dir, source))?
        {
            let cursor = cursor_file::recover(&*fs, dir, &file.name, oldest)
                .map_err(|source| SpoolError::io("read", &dir.join(&file.name), source))?;
            let Some((cursor, whole)) = cursor else { continue };
            if !whole {
                recovered.report.damaged_cursors.push(cursor.name.clone());
            }
            cursors.push(cursor);
        }
        // Where segments were lost, what a sink has confirmed still tells which sequences were given out.
        let confirmed = cursors
            .iter()
            .map(|cursor| cursor.position.load(Ordering::Relaxed))
            .max();
        recovered.report.next_sequence = next_sequence.max(confirmed.unwrap_or(0));
        let durable = Durable {
            end_sequence: recovered.report.next_sequence,
            open: true,
        };
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            gateway_id: gateway_id.to_owned(),
            cursors: Mutex::new(cursors),
            catalog: Mutex::new(recovered.catalog),
            hot: Mutex::new(Hot::new(config.hot_max_bytes)),
            queue: Queue::new(config.queue_max_bytes, config.commit_max_bytes),
            durable: watch::Sender::new(durable),
            recovery: recovered.report,
            config,
            fault: Mutex::default(),
            counters: Counters::default(),
            keeper: Mutex::default(),
            keeper_wakes: Condvar::new(),
        })
    }

    /// The first sequence that some cursor has not passed; 0 where there is no cursor.
    pub(super) fn delivered(&self) -> u64 {
        let cursors = lock(&self.cursors);
        cursors
            .iter()
            .map(|cursor| cursor.position.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }

    pub(super) fn first_sequence(&self) -> u64 {
        lock(&self.catalog)
            .first_sequence()
            .unwrap_or(self.durable.borrow().end_sequence)
    }

    pub(super) fn wake_keeper(&self) {
        lock(&self.keeper).woken = true;
        self.keeper_wakes.notify_one();
    }

    pub(super) fn stop_keeper(&self) {
        lock(&self.keeper).stopped = true;
        self.keeper_wakes.notify_one();
    }

    /// False once the keeper is to stop.
    pub(super) fn keeper_waits(&self, timeout: std::time::Duration) -> bool {
        let waiting = |signal: &mut KeeperSignal| !signal.woken && !signal.stopped;
        let (mut signal, _) = self
            .keeper_wakes
            .wait_timeout_while(lock(&self.keeper), timeout, waiting)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        signal.woken = false;
        !signal.stopped
    }
}

/// Names go into file names and segment headers.
pub(super) fn check_name(name: &str) -> Result<(), SpoolError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    // A file name that ends so is taken for an unfinished one.
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len()) && !name.ends_with(".tmp");
    if fits && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(SpoolError::Name {
        name: name.to_owned(),
    })
}
