//! HAProxy with the one configuration that there is, `haproxy/haproxy.cfg`.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::error::{Doing, PartError, succeeded};
use super::process::{self, Process, Spec};

const PART: &str = "HAProxy";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Debian keeps it off an ordinary user's path.
const DEBIAN_PROGRAM: &str = "/usr/sbin/haproxy";

/// A server behind HAProxy: its listener, and the port of its admin endpoint on the same host.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    pub address: SocketAddr,
    pub admin_port: u16,
}

impl Backend {
    /// A server that is to be started on loopback ports that are free now.
    pub fn on_free_ports() -> Result<Self, PartError> {
        Ok(Self {
            address: (Ipv4Addr::LOCALHOST, process::free_port()?).into(),
            admin_port: process::free_port()?,
        })
    }

    pub fn admin(&self) -> SocketAddr {
        (self.address.ip(), self.admin_port).into()
    }
}

/// Where HAProxy listens and what stands behind it. It starts before its servers do: they are down until they answer.
#[derive(Debug, Clone)]
pub struct HaproxyOptions {
    /// `haproxy/haproxy.cfg` of the repository.
    pub config: PathBuf,
    /// For the log and HAProxy's own socket.
    pub dir: PathBuf,
    /// Public REST. Port 0 means a free one, here and below.
    pub rest: SocketAddr,
    /// Where gateways post to the API. Never a public address.
    pub internal: SocketAddr,
    /// Devices.
    pub mqtt: SocketAddr,
    pub apis: [Backend; 2],
    pub gateways: [Backend; 2],
}

/// A running HAProxy. Dropping it stops it; so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct Haproxy {
    options: HaproxyOptions,
    process: Process,
}

impl Haproxy {
    pub fn start(mut options: HaproxyOptions) -> Result<Self, PartError> {
        fs::create_dir_all(&options.dir).doing(|| format!("create {}", options.dir.display()))?;
        options.dir = fs::canonicalize(&options.dir).doing(|| format!("find {}", options.dir.display()))?;
        for listener in [&mut options.rest, &mut options.internal, &mut options.mqtt] {
            if listener.port() == 0 {
                listener.set_port(process::free_port()?);
            }
        }
        let process = serve(&options)?;
        Ok(Self { options, process })
    }

    pub fn rest(&self) -> SocketAddr {
        self.options.rest
    }

    pub fn internal(&self) -> SocketAddr {
        self.options.internal
    }

    pub fn mqtt(&self) -> SocketAddr {
        self.options.mqtt
    }

    /// Servers that its own checks have found well and ill, each backend's counted; the two must add up to six.
    pub fn servers(&self) -> Result<ServerCounts, PartError> {
        let mut socket =
            UnixStream::connect(socket(&self.options.dir)).doing(|| "reach HAProxy's socket".into())?;
        socket
            .set_read_timeout(Some(START_TIMEOUT))
            .doing(|| "set a timeout".into())?;
        socket.write_all(b"show stat\n").doing(|| "ask HAProxy".into())?;
        let mut table = String::new();
        socket
            .read_to_string(&mut table)
            .doing(|| "hear HAProxy".into())?;
        Ok(count_servers(&table))
    }

    /// Stops the process in its tracks, as a machine that hangs: connections stay open, unanswered.
    pub fn pause(&self) -> Result<(), PartError> {
        self.process.signal(Signal::STOP)
    }

    pub fn resume(&self) -> Result<(), PartError> {
        self.process.signal(Signal::CONT)
    }

    /// `kill -9`; [`Haproxy::restart`] brings it back.
    pub fn kill(&mut self) -> Result<(), PartError> {
        self.process.kill().map(drop)
    }

    /// Starts again on the same addresses.
    pub fn restart(&mut self) -> Result<(), PartError> {
        self.process.stop()?;
        self.process = serve(&self.options)?;
        Ok(())
    }

    /// Stops at once: whoever is connected is cut off.
    pub fn stop(mut self) -> Result<(), PartError> {
        self.process.stop().map(drop)
    }
}

/// What HAProxy thinks of the servers behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerCounts {
    pub up: usize,
    pub down: usize,
}

/// Counts in the CSV that `show stat` answers: backend, server, ..., status.
fn count_servers(table: &str) -> ServerCounts {
    let mut lines = table.lines();
    let columns = lines.next().unwrap_or_default();
    let status_at = columns.split(',').position(|name| name == "status");
    let mut counts = ServerCounts::default();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let of_server = fields
            .get(1)
            .is_some_and(|name| !matches!(*name, "FRONTEND" | "BACKEND"));
        match status_at.and_then(|at| fields.get(at)) {
            Some(status) if of_server && status.starts_with("UP") => counts.up += 1,
            Some(_) if of_server => counts.down += 1,
            _ => {}
        }
    }
    counts
}

/// Checks the configuration, starts, and waits until every listener takes connections.
fn serve(options: &HaproxyOptions) -> Result<Process, PartError> {
    let program = find_program()?;
    let environment = environment(options);
    let checked = Command::new(&program)
        .arg("-c")
        .arg("-f")
        .arg(&options.config)
        .envs(environment.clone())
        .output()
        .doing(|| "start HAProxy to check its configuration".into())?;
    succeeded(PART, "haproxy -c", checked)?;
    let mut process = Process::spawn(Spec {
        part: PART,
        program: &program,
        // In the foreground: a daemon would be no child of ours.
        args: vec!["-db".into(), "-f".into(), options.config.clone().into()],
        env: environment,
        user: None,
        log: options.dir.join("log"),
        stop_signal: Signal::TERM,
        remove: None,
    })?;
    let listeners = [options.rest, options.internal, options.mqtt].map(reachable);
    process.wait_ready(START_TIMEOUT, |_id| {
        listeners
            .iter()
            .all(|listener| TcpStream::connect_timeout(listener, CONNECT_TIMEOUT).is_ok())
    })?;
    Ok(process)
}

fn find_program() -> Result<PathBuf, PartError> {
    ["haproxy", DEBIAN_PROGRAM]
        .into_iter()
        .find(|program| Command::new(program).arg("-v").output().is_ok())
        .map(PathBuf::from)
        .ok_or_else(|| PartError::NotInstalled {
            program: "HAProxy".into(),
            remedy: "`apt-get install haproxy` (2.6 or later)".into(),
        })
}

fn environment(options: &HaproxyOptions) -> Vec<(String, String)> {
    let mut all = vec![
        ("SHOPFLOOR_REST_LISTEN".to_owned(), options.rest.to_string()),
        (
            "SHOPFLOOR_INTERNAL_LISTEN".to_owned(),
            options.internal.to_string(),
        ),
        ("SHOPFLOOR_MQTT_LISTEN".to_owned(), options.mqtt.to_string()),
        (
            "SHOPFLOOR_HAPROXY_SOCKET".to_owned(),
            socket(&options.dir).display().to_string(),
        ),
    ];
    for (kind, backends) in [("API", options.apis), ("GATEWAY", options.gateways)] {
        for (number, backend) in (1..).zip(backends) {
            all.push((format!("SHOPFLOOR_{kind}_{number}"), backend.address.to_string()));
            all.push((
                format!("SHOPFLOOR_{kind}_{number}_ADMIN_PORT"),
                backend.admin_port.to_string(),
            ));
        }
    }
    all
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

/// A server on every address is reached on loopback.
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    listener
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_counted_and_not_their_frontends_and_backends() {
        let table = "# pxname,svname,status,weight\nrest,FRONTEND,OPEN,\nrest_api,api1,UP,1\nrest_api,api2,DOWN,1\n\
                     mqtt,g1,UP 1/2,1\nmqtt,BACKEND,UP,1\n\n";
        assert_eq!(count_servers(table), ServerCounts { up: 2, down: 1 });
    }
}
