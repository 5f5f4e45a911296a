//! One process of the `shopfloor` binary.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use shopfloor::parts::process::{Process, Spec};

use crate::{http, repository};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A server that was started with a configuration file in a directory of its own.
#[derive(Debug)]
pub struct Server {
    kind: &'static str,
    dir: PathBuf,
    args: Vec<OsString>,
    admin: SocketAddr,
    env: Vec<(String, String)>,
    /// Open files at most, where that is fewer than this process may have.
    open_files: Option<u32>,
    process: Process,
}

impl Server {
    /// Starts `shopfloor <kind> --config <dir>/config.toml` with the given configuration, and returns before it is
    /// ready: servers that need each other start side by side.
    pub fn spawn(kind: &'static str, dir: &Path, config: &str, admin: SocketAddr) -> Self {
        Self::spawn_with_env(kind, dir, config, admin, &[])
    }

    /// The same with further variables of its environment.
    pub(crate) fn spawn_with_env(
        kind: &'static str,
        dir: &Path,
        config: &str,
        admin: SocketAddr,
        env: &[(String, String)],
    ) -> Self {
        let args = configure(dir, config);
        Self::start(kind, dir, args, admin, env, None)
    }

    /// As [`Self::spawn`], with a limit of open files.
    pub fn spawn_with_open_files(
        kind: &'static str,
        dir: &Path,
        config: &str,
        admin: SocketAddr,
        open_files: u32,
    ) -> Self {
        let args = configure(dir, config);
        Self::start(kind, dir, args, admin, &[], Some(open_files))
    }

    /// The same with arguments alone; `dir` is for its log.
    pub fn with_args(kind: &'static str, dir: &Path, args: Vec<OsString>, admin: SocketAddr) -> Self {
        Self::start(kind, dir, args, admin, &[], None)
    }

    fn start(
        kind: &'static str,
        dir: &Path,
        args: Vec<OsString>,
        admin: SocketAddr,
        env: &[(String, String)],
        open_files: Option<u32>,
    ) -> Self {
        Self {
            kind,
            dir: dir.to_owned(),
            process: spawn(kind, dir, &args, env, open_files),
            args,
            admin,
            env: env.to_vec(),
            open_files,
        }
    }

    /// Waits until its admin endpoint says that it is ready.
    pub fn wait_ready(&mut self) {
        let admin = self.admin;
        self.process
            .wait_ready(READY_WITHIN, |_id| {
                http::get(admin, "/ready").is_ok_and(|answer| answer.status == 200)
            })
            .unwrap_or_else(|error| panic!("{error}; /ready: {:?}", http::get(admin, "/ready")));
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A metric of the running process; `None` while it is not set.
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let answer = http::get(self.admin, "/metrics").ok()?;
        let line = answer
            .body
            .lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// What this server holds on disk.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts the ended server again, with the same configuration.
    pub fn restart(&mut self) {
        assert!(!self.process.is_running(), "the {} still runs", self.kind);
        self.process = spawn(self.kind, &self.dir, &self.args, &self.env, self.open_files);
    }

    /// SIGSTOP: it hangs, its connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGHUP: it reads its files again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn signal(&self, signal: Signal) {
        self.process
            .signal(signal)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// SIGTERM, as an operator's; asserts that it ends well.
    pub fn stop(mut self) {
        let status = self.process.stop().unwrap_or_else(|error| panic!("{error}"));
        assert!(
            status.success(),
            "{}: {status}: {}",
            self.kind,
            self.process.log_tail()
        );
    }
}

fn configure(dir: &Path, config: &str) -> Vec<OsString> {
    fs::create_dir_all(dir).expect("a directory for the server");
    fs::write(dir.join("config.toml"), config).expect("write the configuration");
    vec!["--config".into(), dir.join("config.toml").into()]
}

fn spawn(
    kind: &'static str,
    dir: &Path,
    own: &[OsString],
    env: &[(String, String)],
    open_files: Option<u32>,
) -> Process {
    // The binary takes every SHOPFLOOR_ variable as a setting; this one is the tests'.
    let mut args: Vec<OsString> = vec!["-u".into(), "SHOPFLOOR_REQUIRE_REAL".into()];
    // Not of the watchdog's shell: only the server goes by them.
    args.extend(env.iter().map(|(name, value)| format!("{name}={value}").into()));
    if let Some(files) = open_files {
        args.extend(["prlimit".into(), format!("--nofile={files}").into()]);
    }
    args.extend([repository::binary().into(), kind.into()]);
    args.extend_from_slice(own);
    Process::spawn(Spec {
        part: kind,
        program: Path::new("env"),
        args,
        env: Vec::new(),
        user: None,
        log: dir.join("log"),
        stop_signal: Signal::TERM,
        remove: None,
    })
    .unwrap_or_else(|error| panic!("{error}"))
}
