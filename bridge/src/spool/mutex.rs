//! How this module takes a lock.

use std::sync::{Mutex, MutexGuard};

/// What a panic elsewhere left behind a lock is whole: every critical section is.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
