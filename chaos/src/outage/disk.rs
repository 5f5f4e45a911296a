//! What the disk itself does meanwhile: a page written and synced, again and again, beside the gateway's spool.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::phase::{Latencies, Phase};

const PAGE_BYTES: usize = 4096;
/// Allocated before, as the spool's segments are: a sync then writes no metadata.
const PAGES: u64 = 256;
const INTERVAL: Duration = Duration::from_millis(25);

/// The measurement. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    now: Mutex<(Phase, Latencies)>,
}

impl Disk {
    /// `dir` must be on the disk of the spool.
    pub(super) fn watch(dir: &Path) -> io::Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(dir.join("synced"))?;
        for page in 0..PAGES {
            file.write_all_at(&[0; PAGE_BYTES], page * PAGE_BYTES as u64)?;
        }
        file.sync_all()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            now: Mutex::new((Phase::WarmUp, Latencies::default())),
        });
        let watched = Arc::clone(&shared);
        let thread = std::thread::spawn(move || sync_again_and_again(&file, &watched));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn enter(&self, phase: Phase) {
        lock(&self.shared.now).0 = phase;
    }

    /// Ends it.
    pub(super) fn latencies(mut self) -> io::Result<Latencies> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(std::mem::take(&mut lock(&self.shared.now).1))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn sync_again_and_again(file: &File, shared: &Shared) -> io::Result<()> {
    for page in (0..PAGES).cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        file.write_all_at(&[page as u8; PAGE_BYTES], page * PAGE_BYTES as u64)?;
        file.sync_data()?;
        let took = began.elapsed();
        let mut now = lock(&shared.now);
        let phase = now.0;
        now.1.record(phase, took);
        drop(now);
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

fn lock(now: &Mutex<(Phase, Latencies)>) -> std::sync::MutexGuard<'_, (Phase, Latencies)> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}
