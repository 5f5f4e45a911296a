//! A line for each acknowledged message, on disk before an auditor looks:
//! `machine,order,partId,timeOfProduction,valid|invalid,sends,latency_us`.
//!
//! Lines are written soon after the acknowledgement, so after a kill of the simulator the last few may be missing;
//! none is ever there without its acknowledgement.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::SimulateError;
use super::ledger::Settled;
use super::payload::iso_ms;

const QUEUE_LINES: usize = 8192;

/// One acknowledged message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckLine {
    pub machine_id: i32,
    pub order: i32,
    pub part_id: i32,
    /// As published: `2023-12-10T00:00:00.000Z`.
    pub time_of_production: String,
    /// False for what was invalid on purpose and belongs in the dead letters.
    pub valid: bool,
    /// Times that it was published; each may have become a copy where QoS allows one.
    pub sends: u32,
    /// From when it was first given to its connection to its acknowledgement, over all reconnects.
    pub latency_us: u64,
}

impl std::fmt::Display for AckLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            machine_id,
            order,
            part_id,
            time_of_production,
            valid,
            sends,
            latency_us,
        } = self;
        let valid = if *valid { "valid" } else { "invalid" };
        write!(
            f,
            "{machine_id},{order},{part_id},{time_of_production},{valid},{sends},{latency_us}"
        )
    }
}

impl FromStr for AckLine {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{line:?} is not machine,order,partId,timeOfProduction,valid|invalid,sends,latency_us")
        };
        let mut fields = line.split(',');
        let mut number = || fields.next()?.parse::<i32>().ok();
        let (machine_id, order, part_id) = (number(), number(), number());
        let (time, valid) = (fields.next(), fields.next());
        let sends = fields.next().and_then(|sends| sends.parse().ok());
        let latency_us = fields.next().and_then(|latency_us| latency_us.parse().ok());
        let read = || {
            Some(Self {
                machine_id: machine_id?,
                order: order?,
                part_id: part_id?,
                time_of_production: time?.to_owned(),
                valid: match valid? {
                    "valid" => true,
                    "invalid" => false,
                    _ => return None,
                },
                sends: sends?,
                latency_us: latency_us?,
            })
        };
        read().filter(|_| fields.next().is_none()).ok_or_else(wrong)
    }
}

/// The machines' end of the log.
#[derive(Debug, Clone)]
pub(super) struct AckLog {
    lines: mpsc::Sender<AckLine>,
}

/// The file's end; [`Writer::finish`] says whether every line is in it.
#[derive(Debug)]
pub(super) struct Writer {
    path: String,
    task: JoinHandle<std::io::Result<()>>,
}

impl AckLog {
    /// Empties the file, so that it is this run's.
    pub(super) async fn create(path: &Path) -> Result<(Self, Writer), SimulateError> {
        let (owned, shown) = (path.to_owned(), path.display().to_string());
        let opened = tokio::task::spawn_blocking(move || File::create(owned)).await;
        let file = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let file = file.map_err(|source| error(&shown, "creating it", source))?;
        let (lines, queue) = mpsc::channel(QUEUE_LINES);
        let task = tokio::task::spawn_blocking(move || write(BufWriter::new(file), queue));
        Ok((Self { lines }, Writer { path: shown, task }))
    }

    /// False where the file cannot be written any more.
    pub(super) async fn acknowledged(&self, settled: &Settled) -> bool {
        let Settled {
            message,
            latency,
            sends,
        } = settled;
        let line = AckLine {
            machine_id: message.unit.machine_id,
            order: message.unit.order,
            part_id: message.unit.part_id,
            time_of_production: iso_ms(message.unit.time_of_production_ms),
            valid: message.is_valid(),
            sends: *sends,
            latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
        };
        self.lines.send(line).await.is_ok()
    }
}

impl Writer {
    /// Waits until the last line is written; every [`AckLog`] must be gone.
    pub(super) async fn finish(self) -> Result<(), SimulateError> {
        let written = self
            .task
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|source| error(&self.path, "writing", source))
    }
}

fn error(path: &str, action: &'static str, source: std::io::Error) -> SimulateError {
    SimulateError::AckLog {
        path: path.to_owned(),
        action,
        source,
    }
}

fn write(mut file: BufWriter<File>, mut queue: mpsc::Receiver<AckLine>) -> std::io::Result<()> {
    let mut lines = Vec::with_capacity(QUEUE_LINES);
    while queue.blocking_recv_many(&mut lines, QUEUE_LINES) > 0 {
        for line in lines.drain(..) {
            writeln!(file, "{line}")?;
        }
        // To the kernel: that outlives a kill of this process.
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_as_what_it_says() {
        let line = AckLine {
            machine_id: 7,
            order: 12,
            part_id: 3,
            time_of_production: "2023-12-10T00:00:00.000Z".to_owned(),
            valid: false,
            sends: 2,
            latency_us: 900,
        };
        assert_eq!(line.to_string(), "7,12,3,2023-12-10T00:00:00.000Z,invalid,2,900");
        assert_eq!(line.to_string().parse(), Ok(line));
        for wrong in [
            "",
            "7,12,3",
            "7,12,3,t,valid",
            "7,12,3,t,valid,1",
            "7,12,3,t,maybe,1,9",
            "7,12,3,t,valid,1,9,",
            "x,12,3,t,valid,1,9",
        ] {
            assert!(wrong.parse::<AckLine>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_written_is_named() {
        let error = AckLog::create(Path::new("/nonexistent/acks.csv"))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/acks.csv"), "{error}");
    }
}
