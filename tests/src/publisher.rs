//! Third parties' publishers, paho-mqtt and mosquitto_pub: what they publish, and what was acknowledged to them.

use std::net::SocketAddr;
use std::process::Command;

use crate::audit::Unit;
use crate::python::{self, Paho};

/// The program that publishes.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    Paho,
    Mosquitto,
}

/// One publisher with one connection.
#[derive(Debug, Clone, Copy)]
pub struct Publisher {
    pub program: Program,
    /// 3.1.1 else.
    pub v5: bool,
    pub qos: u8,
    /// From 1; keeps its units apart from every other publisher's.
    pub number: i32,
    pub messages: i32,
}

/// What one publisher sent, and what of it was acknowledged, both in the order of publication.
#[derive(Debug)]
pub struct Sent {
    pub published: Vec<Unit>,
    /// Empty with QoS 0: there is no acknowledgement.
    pub acknowledged: Vec<Unit>,
}

impl Publisher {
    /// Publishes its units and waits for every acknowledgement.
    pub fn run(self, broker: SocketAddr) -> Sent {
        let published = self.units();
        let payloads: Vec<String> = published.iter().map(Unit::payload).collect();
        // Half of them name the machine in the topic, half in the payload alone.
        let topic = match self.number % 2 {
            0 => format!("factory/third-party/{}/supply-chain", self.machine()),
            _ => "supply-chain".to_owned(),
        };
        let client_id = format!("third-party-{}", self.number);
        let indices = match self.program {
            Program::Paho => Paho {
                broker,
                version: if self.v5 { "5" } else { "311" },
                qos: self.qos,
                client_id: &client_id,
                topic: &topic,
            }
            .publish(&payloads),
            Program::Mosquitto => {
                self.mosquitto_pub(broker, &client_id, &topic, &payloads);
                (0..payloads.len()).collect()
            }
        };
        let acknowledged = match self.qos {
            0 => Vec::new(),
            _ => indices
                .into_iter()
                .map(|index| published[index].clone())
                .collect(),
        };
        Sent {
            published,
            acknowledged,
        }
    }

    /// `mosquitto_pub -l` publishes a line a message and ends well when all are acknowledged.
    fn mosquitto_pub(self, broker: SocketAddr, client_id: &str, topic: &str, payloads: &[String]) {
        let mut command = Command::new("mosquitto_pub");
        command
            .args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()])
            .args(["-V", if self.v5 { "mqttv5" } else { "mqttv311" }])
            .args(["-q", &self.qos.to_string(), "-i", client_id, "-t", topic, "-l"]);
        let lines = payloads.iter().map(|payload| format!("{payload}\n")).collect();
        python::run(command, lines).unwrap_or_else(|error| panic!("mosquitto_pub: {error}"));
    }

    fn machine(self) -> i32 {
        (self.number - 1) % 50 + 1
    }

    fn units(self) -> Vec<Unit> {
        (0..self.messages)
            .map(|n| Unit {
                machine: self.machine(),
                // The simulator counts each machine's orders from 1.
                order: self.number * 1_000_000 + n,
                part: n % 100 + 1,
                time: format!(
                    "2023-12-11T{:02}:{:02}:{:02}.{:03}Z",
                    n / 3600 % 24,
                    n / 60 % 60,
                    n % 60,
                    n % 1000
                ),
            })
            .collect()
    }
}
