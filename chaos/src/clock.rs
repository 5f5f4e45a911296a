//! The wall clock of the gateway and the APIs, which can be set while they run. Their monotonic clocks are not touched:
//! nothing sets those.
//!
//! libfaketime does it, from a file that it reads again every second. It turns the deadlines of `pthread_cond_timedwait`
//! back into real time, but knows nothing of C11's `cnd_timedwait` and `timespec_get`, by which librdkafka waits: each
//! of its waits would last for as long as the clock is off. So those two are led to what libfaketime knows. A wait that
//! is under way when the clock is set ends on time here; on a real machine it may not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A new setting is seen after this.
pub const SEEN_AFTER: Duration = Duration::from_millis(1_200);
/// Debian's places, by architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const SHARED_MEMORY: &str = "/dev/shm";

const C11_WAITS: &str = "#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>
int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    int ended = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return ended == 0 ? thrd_success : ended == ETIMEDOUT ? thrd_timedout : thrd_error;
}
";

/// The file that says how far the clock is off.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    /// [`C11_WAITS`], compiled.
    c11_waits: PathBuf,
}

impl Clock {
    /// Why there can be none; `None` where there can.
    pub fn missing() -> Option<String> {
        library()
            .is_none()
            .then(|| "libfaketime is not installed: apt-get install faketime".to_owned())
    }

    pub fn new(dir: &Path) -> io::Result<Self> {
        let clock = Self {
            file: dir.join("clock"),
            c11_waits: dir.join("c11_waits.so"),
        };
        clock.set(0)?;
        let source = dir.join("c11_waits.c");
        fs::write(&source, C11_WAITS)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&clock.c11_waits)
            .arg(&source)
            .status()?;
        if !compiled.success() {
            return Err(io::Error::other(format!("cc {}: {compiled}", source.display())));
        }
        Ok(clock)
    }

    /// What a process needs in its environment to go by it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let libraries = [self.c11_waits.clone(), library().unwrap_or_default()]
            .map(|library| library.display().to_string())
            .join(":");
        [
            ("LD_PRELOAD", libraries),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Off by so much from the machine's.
    pub fn set(&self, offset_s: i64) -> io::Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset_s:+}\n"))?;
        // Whole or not at all: a process may read it now.
        fs::rename(new, &self.file)
    }

    /// libfaketime leaves its shared memory behind where a process is killed.
    pub fn sweep(&self) {
        for entry in fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = ["faketime_shm_", "sem.faketime_sem_"]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix));
            if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                let _gone = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.sweep();
    }
}

fn library() -> Option<PathBuf> {
    let multiarch = fs::read_dir("/usr/lib").ok()?.flatten();
    multiarch
        .map(|entry| entry.path().join(LIBRARY))
        .find(|library| library.is_file())
}
