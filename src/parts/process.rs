//! A child that never outlives this process, its log, its signals.
//!
//! `Drop` does not run on `kill -9`, on abort, or for a static of a test binary. So a watchdog holds the reading end
//! of a pipe whose writing end only this process has: when the pipe ends without the word `leave`, it stops the
//! server. The watchdog is forked by the shell that then becomes the server, so there is no moment in which a server
//! runs unwatched, and our child's id is the server's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{Doing, PartError};

/// Time between two looks at a server that starts or stops.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time for a clean stop, then the server is killed; the watchdog's script has the same number.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Bytes of a log's end that an error shows.
const LOG_TAIL_BYTES: u64 = 2_000;

/// `$1` signal of a clean stop, `$2` directory to remove after it or empty, the rest the server's command line.
/// The inner `( … & )` leaves the watchdog to init: the server must not find a child that it did not make.
const WATCHED: &str = r#"
signal=$1 remove=$2; shift 2
exec 3<&0 </dev/null
( (
    read -r word <&3
    [ "$word" = leave ] && exit 0
    kill -s "$signal" $$
    tries=300
    while kill -0 $$ && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
    kill -s KILL $$
    [ -z "$remove" ] || rm -rf "$remove"
) >/dev/null 2>&1 & )
exec 3<&-
exec "$@"
"#;

/// An unprivileged user for servers that refuse root.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The first of `postgres` and `nobody` where this process is root; none where it is not.
    pub fn if_root(part: &'static str) -> Result<Option<Self>, PartError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(Self::find)
            .map(Some)
            .ok_or(PartError::NoUnprivilegedUser { part })
    }

    fn find(name: &str) -> Option<Self> {
        let id = |flag: &str| -> Option<u32> {
            // In a group of its own: a Ctrl-C that killed it would look as if there were no such user.
            let output = Command::new("id")
                .args([flag, name])
                .process_group(0)
                .output()
                .ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self {
            name: name.to_owned(),
            uid: id("-u")?,
            gid: id("-g")?,
        })
    }
}

/// What to run and how to end it.
#[derive(Debug)]
pub struct Spec<'a> {
    pub part: &'static str,
    pub program: &'a Path,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    pub user: Option<&'a User>,
    /// Gets stdout and stderr, appended.
    pub log: PathBuf,
    pub stop_signal: Signal,
    /// Directory that goes when this process dies without [`Process::stop`].
    pub remove: Option<&'a Path>,
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    part: &'static str,
    child: Child,
    log: PathBuf,
    log_start: u64,
    stop_signal: Signal,
}

impl Process {
    pub fn spawn(spec: Spec<'_>) -> Result<Self, PartError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .doing(|| format!("open the log {}", spec.log.display()))?;
        let log_start = log.metadata().map_or(0, |metadata| metadata.len());
        let stderr = log.try_clone().doing(|| "open the log twice".into())?;
        let mut command = Command::new("sh");
        command
            .args(["-c", WATCHED, spec.part])
            .arg(signal_name(spec.stop_signal))
            .arg(spec.remove.unwrap_or(Path::new("")))
            .arg(spec.program)
            .args(&spec.args)
            .envs(spec.env)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(stderr)
            // Ctrl-C in a terminal must reach this process alone: it drains, then it stops its parts.
            .process_group(0);
        if let Some(user) = spec.user {
            // A home and a working directory that this user can enter.
            command.uid(user.uid).gid(user.gid).current_dir("/");
        }
        let child = command
            .spawn()
            .doing(|| format!("start {}", spec.program.display()))?;
        Ok(Self {
            part: spec.part,
            child,
            log: spec.log,
            log_start,
            stop_signal: spec.stop_signal,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` holds. An exit or `within` without it is an error with the end of the log.
    pub fn wait_ready(
        &mut self,
        within: Duration,
        mut ready: impl FnMut(u32) -> bool,
    ) -> Result<(), PartError> {
        let deadline = Instant::now() + within;
        loop {
            if ready(self.child.id()) {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                return Err(PartError::Exited {
                    part: self.part,
                    status,
                    log: self.log.clone(),
                    tail: self.log_tail(),
                });
            }
            if Instant::now() >= deadline {
                return Err(PartError::NotReady {
                    part: self.part,
                    within_s: within.as_secs(),
                    log: self.log.clone(),
                    tail: self.log_tail(),
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// What this run has written to the log, its last part.
    pub fn log_tail(&self) -> String {
        tail(&self.log, self.log_start).unwrap_or_else(|error| format!("(unreadable: {error})"))
    }

    /// True while the server runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.exited(), Ok(None))
    }

    /// Does nothing to a server that has ended: its process id may be another's by now.
    pub fn signal(&self, signal: Signal) -> Result<(), PartError> {
        if self.child.stdin.is_none() {
            return Ok(());
        }
        send(self.child.id(), signal).doing(|| format!("signal {}", self.part))
    }

    /// Clean stop; a server that does not end within 30 s is killed.
    pub fn stop(&mut self) -> Result<ExitStatus, PartError> {
        self.end(self.stop_signal)
    }

    /// `kill -9`, as a crash would.
    pub fn kill(&mut self) -> Result<ExitStatus, PartError> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus, PartError> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal(signal)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        tracing::warn!(part = self.part, "did not stop in time, killing it");
        self.signal(Signal::KILL)?;
        self.dismiss_watchdog();
        self.child.wait().doing(|| format!("wait for {}", self.part))
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>, PartError> {
        let status = self.child.try_wait().doing(|| format!("watch {}", self.part))?;
        if status.is_some() {
            self.dismiss_watchdog();
        }
        Ok(status)
    }

    /// The server is gone: nothing is left to watch, and its process id may soon be another's.
    fn dismiss_watchdog(&mut self) {
        if let Some(mut pipe) = self.child.stdin.take()
            && let Err(error) = pipe.write_all(b"leave\n")
        {
            tracing::debug!(part = self.part, %error, "the watchdog had gone already");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(part = self.part, %error, "was not stopped cleanly");
        }
    }
}

/// A loopback port that is free now, from below the range that the kernel gives to outgoing connections: none of
/// those can take it before the server binds it.
pub fn free_port() -> Result<u16, PartError> {
    (0..1_000)
        .map(|_try| rand::random_range(PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))
        .doing(|| format!("find a free port from {} to {}", PORTS.start, PORTS.end))
}

pub(super) fn send(id: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    match pid {
        Some(pid) => Ok(kill_process(pid, signal)?),
        None => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "INT",
        _ => "TERM",
    }
}

fn tail(log: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
