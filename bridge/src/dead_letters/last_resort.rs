//! The spool of dead letters that Kafka refused. What an operator has settled of it is given up from its front.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::DIRECTORY;
use super::settled::Settled;
use crate::spool::{Entry, Spool, SpoolConfig, SpoolError};

/// The spool of last resort; made when it is first needed.
#[derive(Debug, Clone)]
pub(crate) struct LastResort {
    data_dir: PathBuf,
    gateway: String,
    spool: Arc<Mutex<Option<Spool>>>,
}

impl LastResort {
    pub(crate) fn new(data_dir: &Path, gateway: &str) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            gateway: gateway.to_owned(),
            spool: Arc::default(),
        }
    }

    /// Resolves when the entry is on disk.
    pub(crate) async fn keep(&self, entry: Entry) -> Result<(), SpoolError> {
        let spool = self.open().await?;
        let mut entries = vec![entry];
        loop {
            let (sender, done) = oneshot::channel();
            let report = Box::new(move |result: Result<_, SpoolError>| drop(sender.send(result.map(|_| ()))));
            match spool.append(entries, report) {
                Ok(()) => return done.await.unwrap_or(Err(SpoolError::Closed)),
                Err(crate::spool::Refused::Busy(back, _)) => {
                    entries = back;
                    spool.room().await;
                }
                Err(_) => return Err(SpoolError::Closed),
            }
        }
    }

    async fn open(&self) -> Result<Spool, SpoolError> {
        let this = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut slot = this.spool.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(spool) = slot.as_ref() {
                return Ok(spool.clone());
            }
            let spool = open(&this.data_dir, &this.gateway)?;
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
        let spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner).take();
        match spool {
            Some(spool) => spool.close().await,
            None => Ok(()),
        }
    }
}

fn open(data_dir: &Path, gateway: &str) -> Result<Spool, SpoolError> {
    let config = SpoolConfig {
        segment_max_bytes: 8 * 1024 * 1024,
        hot_max_bytes: 0,
        ..SpoolConfig::default()
    };
    Spool::open(&data_dir.join(DIRECTORY), gateway, config)
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
        let spool = open(&data_dir, &gateway)?;
        let first_open = pass_settled(&spool, &settled)?;
        Ok((spool, first_open))
    });
    let (spool, first_open) = opened.await.unwrap_or(Err(SpoolError::Closed))?;
    spool.close().await?;
    Ok(first_open)
}
