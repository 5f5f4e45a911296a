//! Looks at a run while it lasts: acknowledgements as they come, memory and backlog once a second.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shopfloor_tests::server::Server;
use tokio::runtime::Handle;

use super::LOOK_INTERVAL;
use super::disk::Disk;
use super::phase::{Latencies, Phase};
use crate::audit::{Audit, Finding};
use crate::fleet::{Fleets, is_acknowledged_by_puback};
use crate::rig::Rig;

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const LAG: &str = r#"shopfloor_sink_lag_records{sink="kafka"}"#;

/// The gateway at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the start of the run.
    pub at: Duration,
    pub phase: Phase,
    /// Records that wait for Kafka.
    pub backlog: u64,
    /// Resident.
    pub memory_bytes: u64,
}

/// All that was seen.
#[derive(Debug)]
pub(super) struct Account {
    pub samples: Vec<Sample>,
    /// When each phase began, since the start of the run; last, the end of the last one.
    pub begins: Vec<(Phase, Duration)>,
    pub ends: Duration,
    pub acknowledged: usize,
    pub acknowledged_by_phase: [u64; Phase::ALL.len()],
    pub pubacks: Latencies,
    pub syncs: Latencies,
    pub findings: Vec<Finding>,
}

#[derive(Debug)]
pub(super) struct Watch {
    fleets: Fleets,
    audit: Audit,
    disk: Disk,
    started: Instant,
    phase: Phase,
    begins: Vec<(Phase, Duration)>,
    ends: Duration,
    acknowledged_by_phase: [u64; Phase::ALL.len()],
    pubacks: Latencies,
    samples: Vec<Sample>,
}

impl Watch {
    pub(super) fn new(fleets: Fleets, audit: Audit, disk: Disk) -> Self {
        Self {
            fleets,
            audit,
            disk,
            started: Instant::now(),
            phase: Phase::WarmUp,
            begins: vec![(Phase::WarmUp, Duration::ZERO)],
            ends: Duration::ZERO,
            acknowledged_by_phase: Default::default(),
            pubacks: Latencies::default(),
            samples: Vec::new(),
        }
    }

    /// What was acknowledged up to now belongs to the phase that ends.
    pub(super) fn enter(&mut self, phase: Phase, rig: &Rig) {
        self.look(rig);
        self.phase = phase;
        self.disk.enter(phase);
        self.begins.push((phase, self.started.elapsed()));
        let backlog = self.backlog();
        println!(
            "{:>7.1} s  {phase}: {} acknowledged, {backlog} records wait for Kafka",
            self.started.elapsed().as_secs_f64(),
            self.audit.acknowledged()
        );
    }

    pub(super) fn during(&mut self, time: Duration, rig: &Rig) {
        let since = Instant::now();
        while since.elapsed() < time {
            sleep(LOOK_INTERVAL);
            self.look(rig);
        }
    }

    pub(super) fn look(&mut self, rig: &Rig) {
        self.look_at(&rig.gateway);
    }

    pub(super) fn look_at(&mut self, gateway: &Server) {
        self.take_receipts();
        let at = self.started.elapsed();
        let due = self
            .samples
            .last()
            .map_or(Duration::ZERO, |last| last.at + SAMPLE_INTERVAL);
        if at >= due {
            let backlog = gateway
                .metric(LAG)
                .map_or_else(|| self.backlog(), |lag| lag as u64);
            let memory_bytes = resident_bytes(gateway.process_id());
            self.samples.push(Sample {
                at,
                phase: self.phase,
                backlog,
                memory_bytes,
            });
        }
    }

    fn take_receipts(&mut self) {
        let receipts = self.fleets.news(self.phase as usize);
        self.acknowledged_by_phase[self.phase as usize] += receipts.len() as u64;
        for receipt in &receipts {
            if is_acknowledged_by_puback(receipt.unit.name.fleet) {
                self.pubacks.record(self.phase, receipt.latency);
            }
        }
        self.audit.acknowledge(receipts);
    }

    /// As of the last sample.
    pub(super) fn backlog(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.backlog)
    }

    /// Ends the load, and waits until everything is where it should be.
    pub(super) fn finish(&mut self, runtime: &Handle, rig: &Rig) -> Result<()> {
        self.look(rig);
        self.ends = self.started.elapsed();
        let (rest, summaries) = self.fleets.finish(runtime, self.phase as usize)?;
        self.audit.acknowledge(rest);
        for summary in summaries.iter().filter(|summary| !summary.is_complete()) {
            println!("not everything was acknowledged in the end: {summary}");
        }
        println!(
            "{:>7.1} s  audit: {} acknowledged",
            self.started.elapsed().as_secs_f64(),
            self.audit.acknowledged()
        );
        self.audit.settle(rig)
    }

    pub(super) fn account(self) -> Result<Account> {
        Ok(Account {
            samples: self.samples,
            begins: self.begins,
            ends: self.ends,
            acknowledged: self.audit.acknowledged(),
            acknowledged_by_phase: self.acknowledged_by_phase,
            pubacks: self.pubacks,
            syncs: self.disk.latencies().context("syncing a page to the disk")?,
            findings: self.audit.findings(),
        })
    }
}

/// Of a process; 0 where it is gone.
fn resident_bytes(process_id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
