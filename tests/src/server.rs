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
    process: Process,
}

impl Server {
    /// Starts `shopfloor <kind> --config <dir>/config.toml` with the given configuration, and returns before it is
    /// ready: servers that need each other start side by side.
    pub fn spawn(kind: &'static str, dir: &Path, config: &str, admin: SocketAddr) -> Self {
        fs::create_dir_all(dir).expect("a directory for the server");
        fs::write(dir.join("config.toml"), config).expect("write the configuration");
        let args = vec!["--config".into(), dir.join("config.toml").into()];
        Self::with_args(kind, dir, args, admin)
    }

    /// The same with arguments alone; `dir` is for its log.
    pub fn with_args(kind: &'static str, dir: &Path, args: Vec<OsString>, admin: SocketAddr) -> Self {
        Self {
            kind,
            dir: dir.to_owned(),
            process: spawn(kind, dir, &args),
            args,
            admin,
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
        self.process = spawn(self.kind, &self.dir, &self.args);
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

fn spawn(kind: &'static str, dir: &Path, own: &[OsString]) -> Process {
    // The binary takes every SHOPFLOOR_ variable as a setting; this one is the tests'.
    let mut args: Vec<OsString> = vec![
        "-u".into(),
        "SHOPFLOOR_REQUIRE_REAL".into(),
        repository::binary().into(),
        kind.into(),
    ];
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
