//! `shopfloor simulate`: the factory's 50 machines, and what was acknowledged to them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use shopfloor::simulate::ack_log::AckLine;

use crate::audit::Unit;
use crate::repository;

/// A running simulation.
#[derive(Debug)]
pub struct Simulation {
    child: Child,
    ack_log: PathBuf,
}

/// What the simulation came to.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// In the order of acknowledgement, which for one machine is the order of publication.
    pub valid: Vec<Unit>,
    /// Messages that were invalid on purpose: they belong in the dead letters.
    pub invalid: usize,
}

impl Simulation {
    /// 50 machines publish `messages` through `broker`, half of them by MQTT 5. `more` are further arguments.
    pub fn start(dir: &Path, broker: SocketAddr, messages: usize, more: &[&str]) -> Self {
        let ack_log = dir.join("acknowledged.csv");
        let child = Command::new(repository::binary())
            .env_remove("SHOPFLOOR_REQUIRE_REAL")
            .args(["simulate", "--quiet", "--mqtt", "mixed", "--speed", "max"])
            .args([
                "--host",
                &broker.ip().to_string(),
                "--port",
                &broker.port().to_string(),
            ])
            .args(["--messages", &messages.to_string()])
            .arg("--ack-log")
            .arg(&ack_log)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the simulator");
        Self { child, ack_log }
    }

    /// Messages acknowledged up to now.
    pub fn acknowledged_yet(&self) -> usize {
        fs::read_to_string(&self.ack_log).map_or(0, |text| text.lines().count())
    }

    /// Waits for the end; every message must have been acknowledged.
    pub fn finish(self) -> Acknowledged {
        let output = self.child.wait_with_output().expect("wait for the simulator");
        assert!(
            output.status.success(),
            "the simulator ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let text = fs::read_to_string(&self.ack_log).expect("the log of acknowledgements");
        let mut acknowledged = Acknowledged::default();
        for line in text.lines() {
            let line: AckLine = line.parse().expect("a line of the log");
            if line.valid {
                acknowledged.valid.push(Unit {
                    machine: line.machine_id,
                    order: line.order,
                    part: line.part_id,
                    time: line.time_of_production,
                });
            } else {
                acknowledged.invalid += 1;
            }
        }
        acknowledged
    }
}
