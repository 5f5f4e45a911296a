//! The load: fleets of machines as MQTT clients, and every acknowledgement that they got.
//!
//! The simulator's machines resend as MQTT asks: with DUP and the same packet id where the session was kept, as new
//! messages where it was not. Half of them speak 3.1.1, half 5.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shopfloor::simulate::args::MqttVersion;
use shopfloor::simulate::{self, Config, SimulateError, Speed, Summary};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::rig::KEEP_ALIVE;
use crate::unit::{Receipt, STARTS_MS};

const MACHINES: u16 = 20;
/// Unacknowledged messages of one machine: what a break makes it send again.
const INFLIGHT: u16 = 20;
/// Longer than any run: no machine gives up.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);

/// How a fleet publishes.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    qos: u8,
    keep_session: bool,
}

/// By the number that is [`crate::unit::Name::fleet`].
const KINDS: [Kind; 3] = [
    Kind {
        name: "qos1",
        qos: 1,
        keep_session: false,
    },
    Kind {
        name: "qos1-session",
        qos: 1,
        keep_session: true,
    },
    Kind {
        name: "qos2",
        qos: 2,
        keep_session: true,
    },
];

/// Copies that a fleet's device may have caused by itself. With QoS 2 that is one, however often it sent; with QoS 1
/// each send may become one, as MQTT permits.
pub fn permitted_copies(fleet: u8, sends: u32) -> u32 {
    match is_acknowledged_by_puback(fleet) {
        true => sends,
        false => 1,
    }
}

/// Whether its devices publish at QoS 1.
pub fn is_acknowledged_by_puback(fleet: u8) -> bool {
    KINDS.get(usize::from(fleet)).is_some_and(|kind| kind.qos == 1)
}

/// All fleets, running.
#[derive(Debug)]
pub struct Fleets {
    all: Vec<Fleet>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Fleet {
    task: JoinHandle<Result<Summary, SimulateError>>,
    log: AckTail,
    acknowledged: usize,
}

/// A growing file of lines, read as it grows.
#[derive(Debug)]
struct AckTail {
    path: PathBuf,
    file: Option<File>,
    /// The start of a line whose end is not written yet.
    rest: String,
}

impl Fleets {
    /// `rate_per_s` is that of all together.
    pub fn start(runtime: &Handle, broker: SocketAddr, dir: &Path, rate_per_s: u32, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let all = KINDS.iter().zip(STARTS_MS).map(|(kind, start_ms)| {
            let path = dir.join(format!("{}.acknowledged.csv", kind.name));
            let config = Config {
                host: broker.ip().to_string(),
                port: broker.port(),
                mqtt: MqttVersion::Mixed,
                qos: kind.qos,
                keep_session: kind.keep_session,
                inflight: INFLIGHT,
                machines: MACHINES,
                speed: Speed::Max,
                rate_per_s: Some(rate_per_s.div_ceil(KINDS.len() as u32)),
                seed,
                start_ms,
                protobuf_share: 0.2,
                client_prefix: format!("{}-", kind.name),
                keep_alive: KEEP_ALIVE,
                patience: PATIENCE,
                ack_log: Some(path.clone()),
                ..Config::default()
            };
            Fleet {
                task: runtime.spawn(simulate::run(config, stop.clone())),
                log: AckTail {
                    path,
                    file: None,
                    rest: String::new(),
                },
                acknowledged: 0,
            }
        });
        Self {
            all: all.collect(),
            stop,
        }
    }

    /// What was acknowledged since the last look.
    pub fn news(&mut self, cycle: usize) -> Vec<Receipt> {
        let mut news = Vec::new();
        for fleet in &mut self.all {
            assert!(
                !fleet.task.is_finished() || self.stop.is_cancelled(),
                "a fleet ended by itself"
            );
            let before = news.len();
            let lines = fleet.log.lines().expect("the log of acknowledgements is read");
            news.extend(
                lines
                    .iter()
                    .map(|line| Receipt::read(line, cycle).unwrap_or_else(|wrong| panic!("{wrong}"))),
            );
            fleet.acknowledged += news.len() - before;
        }
        news
    }

    /// Acknowledged up to the last look, by fleet.
    pub fn acknowledged(&self) -> Vec<usize> {
        self.all.iter().map(|fleet| fleet.acknowledged).collect()
    }

    /// Whether each fleet has had an acknowledgement for each of its machines on average since `before`.
    pub fn flow_since(&self, before: &[usize]) -> bool {
        let enough = usize::from(MACHINES);
        self.all
            .iter()
            .zip(before)
            .all(|(fleet, before)| fleet.acknowledged >= before + enough)
    }

    /// Publishes no more, and waits until what is under way is acknowledged. The rest of the receipts, and what each
    /// fleet came to.
    pub fn finish(&mut self, runtime: &Handle, cycle: usize) -> anyhow::Result<(Vec<Receipt>, Vec<Summary>)> {
        self.stop.cancel();
        let mut summaries = Vec::new();
        for fleet in &mut self.all {
            summaries.push(runtime.block_on(&mut fleet.task)??);
        }
        let rest = self.news(cycle);
        Ok((rest, summaries))
    }
}

impl AckTail {
    fn lines(&mut self) -> io::Result<Vec<String>> {
        if self.file.is_none() && self.path.exists() {
            self.file = Some(File::open(&self.path)?);
        }
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        file.read_to_string(&mut self.rest)?;
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(whole);
        let lines = std::mem::replace(&mut self.rest, rest);
        Ok(lines.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_is_read_once_and_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = AckTail {
            path: path.clone(),
            file: None,
            rest: String::new(),
        };
        assert!(tail.lines().unwrap().is_empty(), "there is no file yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.lines().unwrap(), ["one"]);
        file.write_all(b"o\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["two"]);
        assert!(tail.lines().unwrap().is_empty());
    }

    #[test]
    fn a_resend_permits_a_copy_with_qos_1_alone() {
        assert_eq!([0, 1, 2].map(|fleet| permitted_copies(fleet, 3)), [3, 3, 1]);
    }
}
