//! One Apache Kafka node in KRaft mode, from its jars.
//!
//! `<dir>/data` holds the logs, `<dir>/server.properties` is written anew at every start, `<dir>/log` is what the
//! server said. One broker that is its own controller, on loopback: for one machine's own use, not for production.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::error::{Doing, PartError, succeeded};
use super::kafka_probe;
use super::process::{self, Process, Spec};

const PART: &str = "Kafka";
/// Partitions of a topic, where who makes it names no number.
const PARTITIONS: u32 = 6;
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Any text of 22 characters of base64url; it keeps the logs of one cluster from being read by another.
const CLUSTER_ID: &str = "c2hvcGZsb29yLWthZmthMQ";

/// Everybody may do what no rule is about.
const ACCESS_RULES: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
";

/// How a node is to run.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    pub dir: PathBuf,
    /// The folder of Kafka's jars and its dependencies'.
    pub jars: PathBuf,
    /// Loopback port for clients; a free one where it is not given.
    pub port: Option<u16>,
    /// Loopback port that clients are told to come to, where something stands between them and the node.
    pub advertised_port: Option<u16>,
    /// For tests: the JVM compiles less, which starts sooner and runs slower; access rules can be set; the directory is
    /// removed when the server or this process ends.
    pub temporary: bool,
}

/// A running node. Dropping it stops it; so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct Kafka {
    options: KafkaOptions,
    ports: Ports,
    process: Process,
}

/// Clients' port, and the port on which the node talks to itself as controller.
#[derive(Debug, Clone, Copy)]
struct Ports {
    clients: u16,
    controller: u16,
}

impl KafkaOptions {
    fn advertised_port(&self, ports: Ports) -> u16 {
        self.advertised_port.unwrap_or(ports.clients)
    }
}

impl Kafka {
    /// Starts the node that keeps its logs in `dir`, on free loopback ports, from the jars in the folder `jars`.
    pub fn start(dir: &Path, jars: &Path) -> Result<Self, PartError> {
        Self::start_with(KafkaOptions {
            dir: dir.to_owned(),
            jars: jars.to_owned(),
            port: None,
            advertised_port: None,
            temporary: false,
        })
    }

    pub fn start_with(mut options: KafkaOptions) -> Result<Self, PartError> {
        fs::create_dir_all(&options.dir).doing(|| format!("create {}", options.dir.display()))?;
        options.dir = fs::canonicalize(&options.dir).doing(|| format!("find {}", options.dir.display()))?;
        check_installed(&options.jars)?;
        format_storage(&options)?;
        let (process, ports) = serve(&options, None)?;
        Ok(Self {
            options,
            ports,
            process,
        })
    }

    /// What clients are to be given as `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!(
            "{}:{}",
            Ipv4Addr::LOCALHOST,
            self.options.advertised_port(self.ports)
        )
    }

    /// Stops the server in its tracks, as a machine that hangs: connections stay open, unanswered.
    pub fn pause(&self) -> Result<(), PartError> {
        self.process.signal(Signal::STOP)
    }

    pub fn resume(&self) -> Result<(), PartError> {
        self.process.signal(Signal::CONT)
    }

    /// `kill -9`; [`Kafka::restart`] brings it back.
    pub fn kill(&mut self) -> Result<(), PartError> {
        self.process.kill().map(drop)
    }

    /// Starts again in the same directory and on the same ports.
    pub fn restart(&mut self) -> Result<(), PartError> {
        self.process.stop()?;
        let (process, _ports) = serve(&self.options, Some(self.ports))?;
        self.process = process;
        Ok(())
    }

    /// Clean shutdown.
    pub fn stop(mut self) -> Result<(), PartError> {
        self.resume()?;
        self.process.stop().map(drop)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if !self.options.temporary {
            return;
        }
        // Nothing of it is kept, so nothing of it need be put in order.
        let stopped = self.process.kill();
        let removed = fs::remove_dir_all(&self.options.dir);
        if stopped.is_err() || removed.is_err() {
            tracing::warn!(dir = %self.options.dir.display(), ?stopped, ?removed, "temporary Kafka left behind");
        }
    }
}

fn check_installed(jars: &Path) -> Result<(), PartError> {
    if Command::new("java").arg("-version").output().is_err() {
        return Err(PartError::NotInstalled {
            program: "Java 17".into(),
            remedy: "`apt-get install openjdk-17-jre-headless`, or put java on PATH".into(),
        });
    }
    let has_jars = fs::read_dir(jars).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("kafka_2.13-"))
        })
    });
    if has_jars {
        return Ok(());
    }
    Err(PartError::NotInstalled {
        program: format!("Apache Kafka (its jars in {})", jars.display()),
        remedy: "`make kafka` gets them by Maven".into(),
    })
}

/// Makes `<dir>/data` unless it is there: whole or not at all.
fn format_storage(options: &KafkaOptions) -> Result<(), PartError> {
    let data = options.dir.join("data");
    if data.join("meta.properties").is_file() {
        return Ok(());
    }
    let unfinished = options.dir.join("data.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).doing(|| format!("remove {}", unfinished.display()))?;
    }
    // Formatting binds no port, but the tool wants a whole configuration.
    let ports = Ports {
        clients: 9092,
        controller: 9093,
    };
    let properties = write_properties(options, &unfinished, ports)?;
    let output = Command::new("java")
        .args(java_args(options))
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(properties)
        .output()
        .doing(|| "start Kafka's storage tool".into())?;
    succeeded(PART, "kafka.tools.StorageTool", output)?;
    fs::rename(&unfinished, &data).doing(|| format!("name the new storage {}", data.display()))
}

/// Starts the node and waits until its metadata names it; where a free port was taken meanwhile, tries others.
fn serve(options: &KafkaOptions, ports: Option<Ports>) -> Result<(Process, Ports), PartError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let chosen = match ports {
            Some(ports) => ports,
            None => Ports {
                clients: options.port.map_or_else(process::free_port, Ok)?,
                controller: process::free_port()?,
            },
        };
        let properties = write_properties(options, &options.dir.join("data"), chosen)?;
        let mut args = java_args(options);
        args.extend(["kafka.Kafka".into(), properties.into()]);
        let mut process = Process::spawn(Spec {
            part: PART,
            program: Path::new("java"),
            args,
            env: Vec::new(),
            user: None,
            log: options.dir.join("log"),
            stop_signal: Signal::TERM,
            remove: options.temporary.then_some(options.dir.as_path()),
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, chosen.clients));
        match process.wait_ready(START_TIMEOUT, |_id| kafka_probe::answers(address)) {
            Ok(()) => return Ok((process, chosen)),
            Err(PartError::Exited { tail, .. })
                if ports.is_none()
                    && tail.contains("Address already in use")
                    && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
}

fn java_args(options: &KafkaOptions) -> Vec<OsString> {
    let mut class_path = options.jars.clone().into_os_string();
    class_path.push("/*");
    let mut args: Vec<OsString> = vec![
        "-Xmx512m".into(),
        "-XX:+UseSerialGC".into(),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
    ];
    if options.temporary {
        args.push("-XX:TieredStopAtLevel=1".into());
    }
    args.extend(["-cp".into(), class_path]);
    args
}

fn write_properties(options: &KafkaOptions, data: &Path, ports: Ports) -> Result<PathBuf, PartError> {
    let path = options.dir.join("server.properties");
    let mut properties = properties(data, ports, options.advertised_port(ports));
    if options.temporary {
        properties.push_str(ACCESS_RULES);
    }
    fs::write(&path, properties).doing(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn properties(data: &Path, Ports { clients, controller }: Ports, advertised: u16) -> String {
    // A backslash starts an escape in a properties file.
    let data = data.display().to_string().replace('\\', "\\\\");
    format!(
        "# Written at every start by src/parts/kafka.rs.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions={PARTITIONS}

# One node can keep one copy.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# For a handful of groups and clients; the defaults are for thousands and make the first of each wait.
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
# A broker that was killed is let in again only when its old session has ended.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_jars_are_an_error_that_says_how_to_get_them() {
        let dir = tempfile::tempdir().unwrap();
        let error = Kafka::start(dir.path(), &dir.path().join("none")).unwrap_err();
        assert!(
            matches!(&error, PartError::NotInstalled { remedy, .. } if remedy.contains("make kafka") || remedy.contains("apt-get")),
            "{error}"
        );
    }
}
