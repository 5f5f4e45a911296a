//! A private Postgres cluster in a directory.
//!
//! `<dir>/data` is the cluster, made once; `<dir>/log` what the server said; the Unix socket lies in `<dir>`. It
//! listens on loopback only and trusts every local user: it is for one machine's own use, not for production.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::error::{Doing, PartError, succeeded};
pub use super::postgres_cluster::PostgresOptions;
use super::postgres_cluster::{PART, ROLE, check_reach, find_bin, make_cluster};
use super::process::{self, Process, Spec, User};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A Unix socket's path holds at most 107 bytes, and Postgres adds `/.s.PGSQL.65535.lock`.
const SOCKET_DIR_BYTES_MAX: usize = 87;

/// A running cluster. Dropping it stops it; so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    bin: PathBuf,
    user: Option<User>,
    port: u16,
    process: Process,
}

impl Postgres {
    /// Starts the durable cluster in `dir` on a free loopback port; makes it first where there is none.
    pub fn start(dir: &Path) -> Result<Self, PartError> {
        Self::start_with(PostgresOptions {
            dir: dir.to_owned(),
            port: None,
            temporary: false,
        })
    }

    pub fn start_with(mut options: PostgresOptions) -> Result<Self, PartError> {
        fs::create_dir_all(&options.dir).doing(|| format!("create {}", options.dir.display()))?;
        options.dir = fs::canonicalize(&options.dir).doing(|| format!("find {}", options.dir.display()))?;
        let bin = find_bin()?;
        let user = User::if_root(PART)?;
        if let Some(user) = &user {
            chown(&options.dir, Some(user.uid), Some(user.gid))
                .doing(|| format!("give {} to {}", options.dir.display(), user.name))?;
            check_reach(&options.dir, user)?;
        }
        make_cluster(&bin, &options, user.as_ref())?;
        let (process, port) = serve(&bin, &options, user.as_ref(), options.port)?;
        Ok(Self {
            options,
            bin,
            user,
            port,
            process,
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection URL of a database, for example `postgres://shopfloor@127.0.0.1:41234/shopfloor`.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{ROLE}@{}:{}/{database}",
            Ipv4Addr::LOCALHOST,
            self.port
        )
    }

    /// Makes the database unless it is there.
    pub fn create_database(&self, name: &str) -> Result<(), PartError> {
        check_name("database", name)?;
        self.psql(
            "postgres",
            &format!(
                "SELECT 'CREATE DATABASE {name}' \
                 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec\n"
            ),
        )
        .map(drop)
    }

    /// Runs a psql script in a database and gives what it printed, one line a row, fields apart by `|`.
    pub fn psql(&self, database: &str, script: &str) -> Result<String, PartError> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().doing(|| "start psql".into())?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(script.as_bytes())
                .doing(|| "write to psql".into())?;
        }
        let output = child.wait_with_output().doing(|| "wait for psql".into())?;
        let output = succeeded(PART, "psql", output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops every process of the server in its tracks, as a machine that hangs: connections stay open, unanswered.
    pub fn pause(&self) -> Result<(), PartError> {
        // The postmaster first: it makes no new backend while the rest stop.
        self.signal_all(Signal::STOP)
    }

    pub fn resume(&self) -> Result<(), PartError> {
        self.signal_all(Signal::CONT)
    }

    /// `kill -9` of the server and its backends; [`Postgres::restart`] brings it back.
    pub fn kill(&mut self) -> Result<(), PartError> {
        let backends = children(self.process.id());
        self.process.kill()?;
        for backend in backends {
            // One that has already seen the postmaster's death is gone.
            let _gone = process::send(backend, Signal::KILL);
        }
        Ok(())
    }

    /// Starts again in the same directory and on the same port.
    pub fn restart(&mut self) -> Result<(), PartError> {
        self.process.stop()?;
        let (process, _port) = serve(&self.bin, &self.options, self.user.as_ref(), Some(self.port))?;
        self.process = process;
        Ok(())
    }

    /// Clean shutdown: open transactions are rolled back, what was committed is on disk.
    pub fn stop(mut self) -> Result<(), PartError> {
        self.resume()?;
        self.process.stop().map(drop)
    }

    fn signal_all(&self, signal: Signal) -> Result<(), PartError> {
        self.process.signal(signal)?;
        for backend in children(self.process.id()) {
            let _gone = process::send(backend, signal);
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.options.temporary {
            return;
        }
        let stopped = self.resume().and_then(|()| self.process.stop());
        let removed = fs::remove_dir_all(&self.options.dir);
        if let (Err(_), _) | (_, Err(_)) = (&stopped, &removed) {
            tracing::warn!(dir = %self.options.dir.display(), ?stopped, ?removed, "temporary cluster left behind");
        }
    }
}

/// Starts the server and waits until it takes connections. A free port may be taken meanwhile, and a server that was
/// killed a moment ago may still hold the directory: both are tried again.
fn serve(
    bin: &Path,
    options: &PostgresOptions,
    user: Option<&User>,
    port: Option<u16>,
) -> Result<(Process, u16), PartError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let chosen = port.map_or_else(process::free_port, Ok)?;
        let mut process = spawn(bin, options, user, chosen)?;
        let pid_file = options.dir.join("data/postmaster.pid");
        match process.wait_ready(START_TIMEOUT, |id| is_ready(&pid_file, id)) {
            Ok(()) => return Ok((process, chosen)),
            Err(PartError::Exited { tail, .. }) if Instant::now() < deadline && is_passing(&tail, port) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_passing(log: &str, port: Option<u16>) -> bool {
    let held = log.contains("lock file \"postmaster.pid\" already exists")
        || log.contains("pre-existing shared memory block");
    let port_taken = log.contains("Address already in use");
    held || (port_taken && port.is_none())
}

fn spawn(
    bin: &Path,
    options: &PostgresOptions,
    user: Option<&User>,
    port: u16,
) -> Result<Process, PartError> {
    let mut args: Vec<OsString> = vec!["-D".into(), options.dir.join("data").into()];
    let mut set = |name: &str, value: &str| {
        args.push("-c".into());
        args.push(format!("{name}={value}").into());
    };
    set("listen_addresses", "127.0.0.1");
    set("port", &port.to_string());
    set("timezone", "UTC");
    set("log_timezone", "UTC");
    set("max_connections", "200");
    let socket_dir = options.dir.display().to_string();
    set(
        "unix_socket_directories",
        if socket_dir.len() <= SOCKET_DIR_BYTES_MAX {
            &socket_dir
        } else {
            ""
        },
    );
    if options.temporary {
        set("fsync", "off");
        set("full_page_writes", "off");
    }
    Process::spawn(Spec {
        part: PART,
        program: &bin.join("postgres"),
        args,
        env: Vec::new(),
        user,
        log: options.dir.join("log"),
        // Postgres' fast shutdown; on TERM it would wait for every client to leave.
        stop_signal: Signal::INT,
        remove: options.temporary.then_some(options.dir.as_path()),
    })
}

/// The pid file's first line is the server's process, its eighth the state, as `pg_ctl -w` reads it.
fn is_ready(pid_file: &Path, id: u32) -> bool {
    let Ok(text) = fs::read_to_string(pid_file) else {
        return false;
    };
    let mut lines = text.lines();
    lines.next() == Some(&id.to_string()) && lines.nth(6).map(str::trim) == Some("ready")
}

fn children(id: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn check_name(what: &'static str, name: &str) -> Result<(), PartError> {
    let fits = name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits {
        return Ok(());
    }
    Err(PartError::BadName {
        what,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> Postgres {
        let dir = tempfile::tempdir().unwrap().keep();
        Postgres::start_with(PostgresOptions {
            dir,
            port: None,
            temporary: true,
        })
        .unwrap()
    }

    #[test]
    fn what_was_committed_is_there_after_a_kill_and_a_restart_on_the_same_port() {
        let mut postgres = temporary();
        postgres.create_database("factory").unwrap();
        postgres.create_database("factory").unwrap();
        postgres
            .psql(
                "factory",
                "CREATE TABLE made (n int); INSERT INTO made VALUES (7);",
            )
            .unwrap();
        let url = postgres.url("factory");
        postgres.kill().unwrap();
        postgres.restart().unwrap();
        assert_eq!(postgres.psql("factory", "SELECT n FROM made;").unwrap(), "7\n");
        assert_eq!(postgres.url("factory"), url);
    }

    #[test]
    fn a_stopped_cluster_starts_again_with_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(dir.path()).unwrap();
        postgres.create_database("kept").unwrap();
        postgres.stop().unwrap();
        let postgres = Postgres::start(dir.path()).unwrap();
        assert_eq!(postgres.psql("kept", "SELECT 1;").unwrap(), "1\n");
        postgres.stop().unwrap();
    }

    #[test]
    fn a_temporary_cluster_leaves_no_file_and_no_process() {
        let postgres = temporary();
        let (dir, id) = (postgres.options.dir.clone(), postgres.process.id());
        drop(postgres);
        assert!(!dir.exists(), "{} is still there", dir.display());
        assert!(
            !Path::new(&format!("/proc/{id}")).exists(),
            "process {id} still runs"
        );
    }

    const DIR_VARIABLE: &str = "SHOPFLOOR_TEST_HELD_CLUSTER";

    #[test]
    #[ignore = "the process that the next test kills"]
    fn holds_a_cluster_until_it_is_killed() {
        let dir = PathBuf::from(std::env::var_os(DIR_VARIABLE).unwrap());
        let postgres = Postgres::start_with(PostgresOptions {
            dir,
            port: None,
            temporary: true,
        })
        .unwrap();
        std::fs::write(
            postgres.options.dir.join("held"),
            postgres.process.id().to_string(),
        )
        .unwrap();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn a_process_that_is_killed_takes_its_cluster_and_the_files_with_it() {
        let dir = tempfile::tempdir().unwrap().keep();
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "parts::postgres::tests::holds_a_cluster_until_it_is_killed",
            ])
            .env(DIR_VARIABLE, &dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let within_20_s = |what: &str, holds: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !holds() {
                assert!(Instant::now() < deadline, "not within 20 s: {what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let server = || std::fs::read_to_string(dir.join("held")).unwrap_or_default();
        within_20_s("a cluster", &|| !server().is_empty());
        let server = PathBuf::from(format!("/proc/{}", server()));
        assert!(server.exists());
        holder.kill().unwrap();
        holder.wait().unwrap();
        within_20_s("the end of the server and its files", &|| {
            !server.exists() && !dir.exists()
        });
    }

    #[test]
    fn a_directory_that_the_servers_user_cannot_reach_is_named_with_the_remedy() {
        if !rustix::process::geteuid().is_root() {
            // Only root runs the server as another user.
            return;
        }
        let closed = tempfile::tempdir().unwrap();
        std::fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let error = Postgres::start(&closed.path().join("cluster"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("chmod o+x {}", closed.path().display())),
            "{error}"
        );
    }

    #[test]
    fn a_database_name_that_is_no_name_is_refused_before_psql_sees_it() {
        for name in ["", "1st", "a b", "a'; DROP DATABASE b", "Größe", &"a".repeat(64)] {
            assert!(matches!(
                check_name("database", name),
                Err(PartError::BadName { .. })
            ));
        }
    }

    #[test]
    fn a_failed_statement_says_what_postgres_said() {
        let error = temporary().psql("postgres", "SELECT nothing;").unwrap_err();
        assert!(
            error.to_string().contains("column \"nothing\" does not exist"),
            "{error}"
        );
    }
}
