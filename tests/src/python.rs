//! The clients that are not ours: the migration client's reader, paho-mqtt's publisher.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::repository;

/// One record as the migration client accepted it.
#[derive(Debug, Clone)]
pub struct Consumed {
    pub topic: String,
    pub partition: i64,
    pub offset: i64,
    pub key: Option<String>,
    pub value: Value,
}

/// The migration client, kafka-python 2.0.2 in group `g2`, reading until it is closed.
#[derive(Debug)]
pub struct MigrationClient {
    child: Child,
    consumed: Arc<Mutex<Vec<Consumed>>>,
    reader: Option<JoinHandle<()>>,
}

impl MigrationClient {
    pub fn start(bootstrap: &str, topics: &[&str]) -> Self {
        let mut child = Command::new(repository::python())
            .arg(repository::script("migration_client.py"))
            .arg(bootstrap)
            .args(topics)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the migration client");
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        let consumed = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&consumed);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let record = parse(&line.expect("the migration client writes UTF-8"));
                into.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            }
        });
        Self {
            child,
            consumed,
            reader: Some(reader),
        }
    }

    /// Looks at every record that it has accepted up to now. Panics with its reason when it refused one.
    pub fn look<T>(&mut self, at: impl FnOnce(&[Consumed]) -> T) -> T {
        if let Some(status) = self.child.try_wait().expect("watch the migration client") {
            panic!(
                "the migration client ended with {status}: {}",
                said(self.child.stderr.take())
            );
        }
        at(&self.consumed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes it and gives every record that it accepted. Panics with its reason when it refused one.
    pub fn close(mut self) -> Vec<Consumed> {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("wait for the migration client");
        assert!(
            status.success(),
            "the migration client ended with {status}: {}",
            said(self.child.stderr.take())
        );
        if let Some(reader) = self.reader.take() {
            reader.join().expect("every line was a record");
        }
        std::mem::take(&mut self.consumed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for MigrationClient {
    fn drop(&mut self) {
        // It ends by itself when its stdin ends with this process; here it must not outlive its test.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Produces records `(key, value)` with kafka-python; all are acknowledged when it returns.
pub fn produce(bootstrap: &str, topic: &str, records: &[(String, String)]) {
    let lines = records
        .iter()
        .map(|(key, value)| format!("{key}\t{value}\n"))
        .collect();
    let mut command = Command::new(repository::python());
    command
        .arg(repository::script("produce.py"))
        .args([bootstrap, topic]);
    run(command, lines).expect("every record is acknowledged");
}

/// Every record that a topic holds now: `value` (text) and `headers`.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Value> {
    let mut command = Command::new(repository::python());
    command
        .arg(repository::script("read_all.py"))
        .args([bootstrap, topic]);
    let printed = run(command, String::new()).expect("the topic is read");
    printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("the reader writes JSON"))
        .collect()
}

/// How paho-mqtt is to publish.
#[derive(Debug, Clone, Copy)]
pub struct Paho<'a> {
    pub broker: SocketAddr,
    /// `"311"` or `"5"`.
    pub version: &'a str,
    pub qos: u8,
    pub client_id: &'a str,
    pub topic: &'a str,
}

impl Paho<'_> {
    /// Publishes the payloads, each a line, and gives the indices of those that were acknowledged, in order.
    pub fn publish(self, payloads: &[String]) -> Vec<usize> {
        let mut command = Command::new(repository::python());
        command
            .arg(repository::script("paho_publisher.py"))
            .args([self.broker.ip().to_string(), self.broker.port().to_string()])
            .args([self.version, &self.qos.to_string(), self.client_id, self.topic]);
        let lines = payloads.iter().map(|payload| format!("{payload}\n")).collect();
        let printed = run(command, lines)
            .unwrap_or_else(|error| panic!("paho-mqtt {} QoS {}: {error}", self.version, self.qos));
        printed
            .lines()
            .map(|number| number.parse().expect("an index a line"))
            .collect()
    }
}

/// Runs a program on `input` and gives its stdout, or why it failed.
pub fn run(mut command: Command, input: String) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let mut stdin = child.stdin.take().expect("its stdin is a pipe");
    // Written beside the reading: neither side waits for a full pipe of the other.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let written = writer.join().expect("the writer does not panic");
    if !output.status.success() || written.is_err() {
        return Err(format!("{} ({written:?}): {stderr}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn parse(line: &str) -> Consumed {
    let line: Value = serde_json::from_str(line).expect("the migration client writes JSON");
    let number = |name: &str| line[name].as_i64().expect("a number");
    Consumed {
        topic: line["topic"].as_str().expect("a topic").to_owned(),
        partition: number("partition"),
        offset: number("offset"),
        key: line["key"].as_str().map(str::to_owned),
        value: line["value"].clone(),
    }
}

fn said(stderr: Option<ChildStderr>) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = stderr {
        stderr.read_to_string(&mut text).unwrap_or_default();
    }
    text
}
