//! The keys in memory.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::TokenError;
use super::config::TokenConfig;
use super::fetch::{FetchError, Fetcher};
use crate::metrics;

/// Least time between two fetches that tokens with unknown keys bring about.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Keys {
    fetcher: Fetcher,
    refresh_interval: Duration,
    pub(super) min_fetch_interval: Duration,
    current: RwLock<Arc<Vec<Key>>>,
    /// When the last fetch began; held during one, so that who waits for a key waits for the same fetch.
    last_fetch: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<KeyAlgorithm>,
    key: Arc<DecodingKey>,
}

impl Keys {
    pub(super) fn new(config: &TokenConfig) -> Result<Self, FetchError> {
        Ok(Self {
            fetcher: Fetcher::new(config)?,
            refresh_interval: Duration::from_secs(config.refresh_interval_s),
            min_fetch_interval: MIN_FETCH_INTERVAL,
            current: RwLock::default(),
            last_fetch: Mutex::new(None),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current().is_empty()
    }

    fn current(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that a token names. A token that names none is taken only where there is one key for its algorithm.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<DecodingKey>, TokenError> {
        let seen = self.current();
        if let Some(key) = pick(&seen, id, algorithm) {
            return Ok(key);
        }
        self.fetch_unless_recent(&seen).await;
        let current = self.current();
        match pick(&current, id, algorithm) {
            Some(key) => Ok(key),
            None if current.is_empty() => Err(TokenError::NoKeys),
            None => Err(TokenError::UnknownKey),
        }
    }

    async fn fetch_unless_recent(&self, seen: &Arc<Vec<Key>>) {
        let mut last_fetch = self.last_fetch.lock().await;
        let renewed = !Arc::ptr_eq(seen, &self.current());
        let recent = last_fetch.is_some_and(|at| at.elapsed() < self.min_fetch_interval);
        if !renewed && !recent {
            *last_fetch = Some(Instant::now());
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "the identity provider's keys were not fetched; the known ones stay");
            }
        }
    }

    pub(super) async fn fetch(&self) -> Result<(), FetchError> {
        let mut last_fetch = self.last_fetch.lock().await;
        *last_fetch = Some(Instant::now());
        self.renew().await
    }

    pub(super) async fn keep_fresh(&self) {
        loop {
            let pause = match self.fetch().await {
                Ok(()) => self.refresh_interval,
                Err(error) => {
                    tracing::warn!(%error, "the identity provider's keys were not fetched; the known ones stay");
                    self.refresh_interval.min(self.min_fetch_interval)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew(&self) -> Result<(), FetchError> {
        let keys = self.fetcher.fetch().await.map(|set| usable(&set));
        let keys = match keys {
            Ok(keys) if keys.is_empty() => Err(FetchError::Set("has no key for signatures".into())),
            keys => keys,
        };
        metrics::keys_fetched(keys.is_ok());
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys?);
        Ok(())
    }
}

fn usable(set: &[Jwk]) -> Vec<Key> {
    let for_signatures = |jwk: &&Jwk| {
        // A shared secret is no key here, also where a provider publishes one by mistake.
        !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_))
            && matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
    };
    set.iter()
        .filter(for_signatures)
        .filter_map(|jwk| {
            Some(Key {
                id: jwk.common.key_id.clone(),
                algorithm: jwk.common.key_algorithm,
                key: Arc::new(DecodingKey::from_jwk(jwk).ok()?),
            })
        })
        .collect()
}

fn pick(keys: &[Key], id: Option<&str>, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
    let suits = |key: &&Key| {
        key.key.family() == algorithm.family()
            && key
                .algorithm
                .is_none_or(|own| own == KeyAlgorithm::from(algorithm))
    };
    let mut suitable = keys.iter().filter(suits);
    match id {
        Some(id) => suitable.find(|key| key.id.as_deref() == Some(id)),
        None => suitable.next().filter(|_| suitable.next().is_none()),
    }
    .map(|key| Arc::clone(&key.key))
}
