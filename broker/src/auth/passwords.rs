//! Passwords against their hashes, at a bounded cost.
//!
//! A hash takes tens of milliseconds of one core and as many megabytes. So: few at a time, beside the tasks that serve
//! connections; few that wait; and what was proven a moment ago is remembered, so that a plant whose devices all
//! reconnect does not hash for minutes. An unknown user costs the same as a known one.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use shopfloor_runtime::reload::Reload;
use tokio::sync::Semaphore;

use crate::config::AuthConfig;
use crate::password_file::{self, Users};

const MAX_REMEMBERED: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Passwords {
    file: Option<PathBuf>,
    users: RwLock<Users>,
    running: Arc<Semaphore>,
    waiting: Semaphore,
    proven: Proven,
}

/// Too many passwords are being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

impl Passwords {
    /// Nobody is known until the file was read.
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self {
            file: config.password_file.clone(),
            users: RwLock::default(),
            running: Arc::new(Semaphore::new(config.max_password_checks)),
            waiting: Semaphore::new(config.max_password_checks + config.max_waiting_password_checks),
            proven: Proven::new(Duration::from_secs(config.password_cache_s)),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// Whether `password` is the user's.
    pub(super) async fn verify(&self, user: &str, password: &[u8]) -> Result<bool, Busy> {
        let (hash, is_known) = {
            let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
            let own = users.hash(user);
            (own.or(users.any_hash()).cloned(), own.is_some())
        };
        let Some(hash) = hash else { return Ok(false) };
        let tag = self.proven.tag(user, &hash, password);
        if self.proven.knows(&tag) {
            return Ok(is_known);
        }
        let _waiting = self.waiting.try_acquire().map_err(|_full| Busy)?;
        let running = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_closed| Busy)?;
        let password = password.to_vec();
        // The place goes along: a client that leaves does not make room for one more at a time.
        let checked = tokio::task::spawn_blocking(move || {
            let _running = running;
            password_file::verify(&hash, &password)
        });
        let proven = checked.await.unwrap_or(false) && is_known;
        if proven {
            self.proven.remember(tag);
        }
        Ok(proven)
    }
}

impl Reload for Passwords {
    fn what(&self) -> &'static str {
        "passwords"
    }

    fn files(&self) -> Vec<PathBuf> {
        self.file.iter().cloned().collect()
    }

    fn reload(&self) -> Result<(), String> {
        if let Some(file) = &self.file {
            let users = password_file::read(file).map_err(|wrong| wrong.join("; "))?;
            *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        }
        Ok(())
    }
}

/// What was proven: keyed hashes of user, stored hash and password, never the password. A user whose hash changes is
/// not found any more.
struct Proven {
    key: Option<hmac::Key>,
    lasts: Duration,
    until: Mutex<HashMap<Box<[u8]>, Instant>>,
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proven")
    }
}

impl Proven {
    fn new(lasts: Duration) -> Self {
        Self {
            // Without random numbers nothing is remembered.
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            lasts,
            until: Mutex::default(),
        }
    }

    fn tag(&self, user: &str, hash: &str, password: &[u8]) -> Option<Box<[u8]>> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Some(context.sign().as_ref().into())
    }

    fn knows(&self, tag: &Option<Box<[u8]>>) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        tag.as_ref()
            .and_then(|tag| until.get(tag))
            .is_some_and(|until| Instant::now() < *until)
    }

    fn remember(&self, tag: Option<Box<[u8]>>) {
        let Some(tag) = tag.filter(|_| !self.lasts.is_zero()) else {
            return;
        };
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= MAX_REMEMBERED {
            until.retain(|_, until| now < *until);
        }
        if until.len() < MAX_REMEMBERED {
            until.insert(tag, now + self.lasts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords(config: AuthConfig, dir: &tempfile::TempDir) -> Passwords {
        let file = dir.path().join("passwords");
        password_file::set(&file, "press", b"geheim").unwrap();
        let passwords = Passwords::new(&AuthConfig {
            password_file: Some(file),
            ..config
        });
        passwords.reload().unwrap();
        passwords
    }

    #[tokio::test]
    async fn a_proven_password_is_remembered_until_it_changes_and_a_wrong_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let passwords = passwords(AuthConfig::default(), &dir);
        for (user, password, right) in [
            ("press", "geheim", true),
            ("press", "x", false),
            ("nobody", "geheim", false),
        ] {
            assert_eq!(
                passwords.verify(user, password.as_bytes()).await,
                Ok(right),
                "{user} {password}"
            );
        }
        assert_eq!(passwords.proven.until.lock().unwrap().len(), 1);
        // No place is left: only what is remembered is answered.
        passwords.waiting.forget_permits(usize::MAX);
        assert_eq!(passwords.verify("press", b"geheim").await, Ok(true));
        assert_eq!(passwords.verify("press", b"x").await, Err(Busy));
        assert_eq!(
            passwords.verify("nobody", b"geheim").await,
            Err(Busy),
            "the same work as for a user"
        );
        password_file::set(passwords.file.as_ref().unwrap(), "press", b"neu").unwrap();
        passwords.reload().unwrap();
        assert_eq!(
            passwords.verify("press", b"geheim").await,
            Err(Busy),
            "the old one is forgotten"
        );
    }

    #[tokio::test]
    async fn a_bad_file_leaves_the_known_users() {
        let dir = tempfile::tempdir().unwrap();
        let passwords = passwords(AuthConfig::default(), &dir);
        std::fs::write(passwords.file.as_ref().unwrap(), "press:plain\n").unwrap();
        assert!(passwords.reload().is_err());
        assert_eq!(passwords.verify("press", b"geheim").await, Ok(true));
    }
}
