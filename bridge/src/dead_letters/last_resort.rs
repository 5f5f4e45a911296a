//! The spool of dead letters that Kafka refused. What an operator has settled of it is given up from its front.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::DIRECTORY;
use super::settled::Settled;
use crate::sinks::Progress;
use crate::spool::{Entry, Refused, Spool, SpoolConfig, SpoolError};

/// An envelope may grow by so much when its record becomes a dead letter: by the reason, mostly.
const ENVELOPE_GROWTH_BYTES: u64 = 64 * 1024;
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// How often whoever waits for room looks why there is none.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The spool of last resort; made when it is first needed.
#[derive(Debug, Clone)]
pub(crate) struct LastResort {
    data_dir: PathBuf,
    gateway: String,
    config: SpoolConfig,
    spool: Arc<Mutex<Option<Spool>>>,
    stop: CancellationToken,
}

impl LastResort {
    /// `messages` is the configuration of the spool that the letters come from: what it took, this one takes.
    pub(crate) fn new(data_dir: &Path, gateway: &str, messages: &SpoolConfig) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            gateway: gateway.to_owned(),
            config: config(messages),
            spool: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// The same spool, for whom must not wait for room in it longer than until `stop`.
    pub(crate) fn until(&self, stop: &CancellationToken) -> Self {
        Self {
            stop: stop.clone(),
            ..self.clone()
        }
    }

    /// Resolves when the entry is on disk. While there is no room the sink waits, and `progress` says why.
    ///
    /// # Errors
    /// [`SpoolError::Closed`] where there still is no room at the stop: the sink's cursor has not moved, so the next run
    /// comes here again.
    pub(crate) async fn keep(&self, entry: Entry, progress: &Progress) -> Result<(), SpoolError> {
        let spool = self.open().await?;
        let mut stored = pin!(append(&spool, entry));
        let mut held = false;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut stored => break result,
                () = self.stop.cancelled(), if held => break Err(SpoolError::Closed),
                () = tokio::time::sleep(LOOK_INTERVAL) => held = self.tell_if_held(&spool, progress),
            }
        };
        if spool.fault().is_some() {
            // The next try opens it anew.
            self.lock().take();
        }
        result
    }

    fn tell_if_held(&self, spool: &Spool, progress: &Progress) -> bool {
        let held = spool.status().held;
        if let Some(hold) = held {
            progress.stuck(format!(
                "a dead letter cannot be kept in {}: {hold}; make room on the disk, or settle letters with `shopfloor dlq` \
                 and start the gateway again, which gives their space back",
                self.data_dir.join(DIRECTORY).display()
            ));
        }
        held.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Spool>> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Spool, SpoolError> {
        let this = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut slot = this.lock();
            if let Some(spool) = slot.as_ref() {
                return Ok(spool.clone());
            }
            let spool = open(&this.data_dir, &this.gateway, this.config.clone())?;
            let mut settled = Settled::default();
            match settled.read_file(&this.data_dir) {
                Ok(()) => drop(pass_settled(&spool, &settled)?),
                // Everything stays then, which is no harm but to the disk.
                Err(error) => tracing::warn!(%error, "the marks of settled dead letters cannot be read"),
            }
            Ok(slot.insert(spool).clone())
        });
        opened.await.unwrap_or(Err(SpoolError::Closed))
    }

    pub(crate) async fn close(&self) -> Result<(), SpoolError> {
        let spool = self.lock().take();
        match spool {
            Some(spool) => spool.close().await,
            None => Ok(()),
        }
    }
}

fn open(data_dir: &Path, gateway: &str, config: SpoolConfig) -> Result<Spool, SpoolError> {
    Spool::open(&data_dir.join(DIRECTORY), gateway, config)
}

fn config(messages: &SpoolConfig) -> SpoolConfig {
    let commit_max_bytes = messages.commit_max_bytes.saturating_add(ENVELOPE_GROWTH_BYTES);
    SpoolConfig {
        commit_max_bytes,
        queue_max_bytes: commit_max_bytes.saturating_mul(8),
        segment_max_bytes: commit_max_bytes.saturating_mul(2).max(SEGMENT_BYTES),
        hot_max_bytes: 0,
        min_free_disk_bytes: messages.min_free_disk_bytes,
        ..SpoolConfig::default()
    }
}

async fn append(spool: &Spool, entry: Entry) -> Result<(), SpoolError> {
    let mut entries = vec![entry];
    loop {
        let (sender, done) = oneshot::channel();
        let report = Box::new(move |result: Result<_, SpoolError>| drop(sender.send(result.map(|_| ()))));
        match spool.append(entries, report) {
            Ok(()) => return done.await.unwrap_or(Err(SpoolError::Closed)),
            Err(Refused::Busy(back, _)) => {
                entries = back;
                spool.room().await;
            }
            Err(_) => return Err(SpoolError::Closed),
        }
    }
}

/// Moves the only cursor past what is settled without a gap; everything else stays. Returns where it stands.
fn pass_settled(spool: &Spool, settled: &Settled) -> Result<u64, SpoolError> {
    let cursor = spool.cursor("replay")?;
    cursor.advance(settled.first_open_on_disk(cursor.position()));
    Ok(cursor.position())
}

/// Gives up what is settled at the front; returns the first letter that stays. Refused as locked where the gateway has
/// the spool open.
pub(super) async fn trim(data_dir: &Path, gateway: &str, settled: &Settled) -> Result<u64, SpoolError> {
    let (data_dir, gateway, settled) = (data_dir.to_owned(), gateway.to_owned(), settled.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let spool = open(&data_dir, &gateway, config(&SpoolConfig::default()))?;
        let first_open = pass_settled(&spool, &settled)?;
        Ok((spool, first_open))
    });
    let (spool, first_open) = opened.await.unwrap_or(Err(SpoolError::Closed))?;
    spool.close().await?;
    Ok(first_open)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn letter() -> Entry {
        Entry {
            meta: Bytes::from_static(b"meta"),
            payload: Bytes::from_static(b"refused"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_letter_waits_for_room_until_the_gateway_stops_and_the_operator_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let limits = |min_free_disk_bytes| SpoolConfig {
            min_free_disk_bytes,
            ..SpoolConfig::default()
        };
        let spool = Spool::open(&dir.path().join("spool"), "gw-1", limits(0)).unwrap();
        let progress = Arc::new(Progress::new("kafka", spool.cursor("kafka").unwrap()));
        // No disk has as much free.
        let stop = CancellationToken::new();
        let full = LastResort::new(dir.path(), "gw-1", &limits(1 << 60)).until(&stop);
        let waiting = tokio::spawn({
            let (full, progress) = (full.clone(), progress.clone());
            async move { full.keep(letter(), &progress).await }
        });
        let told = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                match progress.trouble() {
                    Some(trouble) => return trouble,
                    None => tokio::task::yield_now().await,
                }
            }
        });
        let told = told.await.unwrap();
        assert!(
            told.contains("dead-letters") && told.contains("min_free_disk_bytes"),
            "{told}"
        );
        assert!(!waiting.is_finished(), "it is neither lost nor given up");
        // Its sink keeps the record, and a gateway that is started with room keeps the letter.
        stop.cancel();
        let gave_up = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        let gave_up = gave_up.expect("a stop ends the wait").unwrap();
        assert!(matches!(gave_up, Err(SpoolError::Closed)), "{gave_up:?}");
        full.close().await.unwrap();
        let roomy = LastResort::new(dir.path(), "gw-1", &limits(0));
        roomy.keep(letter(), &progress).await.unwrap();
        roomy.close().await.unwrap();
        spool.close().await.unwrap();
    }
}
