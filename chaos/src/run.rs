//! A run: cycle after cycle on one whole, with an audit now and then and one at the end.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use shopfloor_tests::repository;

use crate::audit::{Audit, Finding};
use crate::fault::Fault;
use crate::fleet::Fleets;
use crate::inflict::inflict;
use crate::report::{Cycle, NotRun, Report};
use crate::rig::{self, Limits, Rig};
use crate::schedule::Schedule;

const RECOVERY_MAX: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Undisturbed load before a fault.
const CALM_MS: std::ops::Range<u64> = 200..800;
/// Findings of one audit that are shown one by one.
const SHOWN_MAX: usize = 10;

pub(crate) const EXACTLY_ONCE: &str = "exactly-once";

/// What a run does.
#[derive(Debug, Clone)]
pub struct Options {
    pub cycles: usize,
    pub seed: u64,
    /// `bridge.kafka.delivery` of the gateway; its default where none is given.
    pub delivery: Option<String>,
    pub faults: Vec<Fault>,
    /// Messages a second, over all devices.
    pub rate_per_s: u32,
    /// Cycles from one audit to the next.
    pub audit_every: usize,
}

/// Runs it, saying what it does on the way. `None` where real Kafka cannot be had and need not be.
pub fn run(options: &Options) -> Result<Option<Report>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (faults, not_run) = possible(&options.faults)?;
    let rig = Rig::start(
        runtime.handle(),
        &rig::Options {
            faults: &faults,
            delivery: options.delivery.as_deref(),
            limits: Limits::Small,
        },
    );
    let Some(rig) = rig else {
        return Ok(None);
    };
    let devices = rig.wires.get(crate::fault::Wire::Devices).address();
    let fleets = Fleets::start(
        runtime.handle(),
        devices,
        rig.dir(),
        options.rate_per_s,
        options.seed,
    );
    let mut run = Run {
        audit: Audit::new(&rig.kafka.bootstrap()),
        fleets,
        rig,
        cycles: Vec::new(),
        exactly_once: options.delivery.as_deref() == Some(EXACTLY_ONCE),
        told: HashSet::new(),
    };
    let done = run.all_cycles(options, faults).and_then(|()| {
        let Run {
            fleets,
            audit,
            rig,
            cycles,
            ..
        } = &mut run;
        let after = cycles.len() + 1;
        let (receipts, summaries) = fleets.finish(runtime.handle(), after)?;
        audit.acknowledge(receipts);
        for summary in summaries.iter().filter(|summary| !summary.is_complete()) {
            println!("not everything was acknowledged in the end: {summary}");
        }
        audit.settle(rig)
    });
    if let Err(error) = done {
        let logs = run.rig.keep();
        return Err(error.context(format!("the run ended early; its logs are in {}", logs.display())));
    }
    run.tell_findings();
    let report = Report {
        acknowledged: run.audit.acknowledged(),
        findings: run.audit.findings(),
        cycles: run.cycles,
        exactly_once: run.exactly_once,
        not_run,
    };
    if !report.is_good() {
        println!("logs are in {}", run.rig.keep().display());
    }
    Ok(Some(report))
}

/// The faults that can be done here, and why the others cannot.
fn possible(faults: &[Fault]) -> Result<(Vec<Fault>, Vec<NotRun>)> {
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for fault in faults {
        match fault.missing() {
            None => can.push(*fault),
            Some(why) if repository::require_real() => bail!("{fault} cannot be done here: {why}"),
            Some(why) => cannot.push((*fault, why)),
        }
    }
    ensure!(
        !can.is_empty(),
        "none of these faults can be done here: {cannot:?}"
    );
    Ok((can, cannot))
}

struct Run {
    fleets: Fleets,
    rig: Rig,
    audit: Audit,
    cycles: Vec<Cycle>,
    exactly_once: bool,
    /// Findings that were shown.
    told: HashSet<Finding>,
}

impl Run {
    fn all_cycles(&mut self, options: &Options, faults: Vec<Fault>) -> Result<()> {
        self.wait_for_flow().context("before the first fault")?;
        let mut schedule = Schedule::new(faults, options.seed);
        for number in 1..=options.cycles {
            let (fault, rng) = schedule.draw();
            self.cycle(number, fault, rng)
                .with_context(|| format!("cycle {number}, {fault}, seed {}", options.seed))?;
            if number % options.audit_every == 0 && number < options.cycles {
                self.audit.settle(&self.rig)?;
                self.tell_findings();
            }
        }
        Ok(())
    }

    fn cycle(&mut self, number: usize, fault: Fault, mut rng: StdRng) -> Result<()> {
        let before = self.audit.acknowledged();
        sleep(Duration::from_millis(rng.random_range(CALM_MS)));
        for damaged in inflict(fault, &mut self.rig, &mut rng)? {
            self.audit.damage(damaged);
        }
        let recovered = self.wait_for_flow()?;
        let cycle = Cycle {
            fault,
            acknowledged: self.audit.acknowledged() - before,
            recovered,
        };
        println!(
            "cycle {number:<5}{fault:<20}recovered {:>5.1} s  acknowledged {}",
            recovered.as_secs_f64(),
            cycle.acknowledged
        );
        self.cycles.push(cycle);
        Ok(())
    }

    /// Until every fleet gets acknowledgements.
    fn wait_for_flow(&mut self) -> Result<Duration> {
        let number = self.cycles.len() + 1;
        self.audit.acknowledge(self.fleets.news(number));
        let (before, since) = (self.fleets.acknowledged(), Instant::now());
        while !self.fleets.flow_since(&before) {
            if since.elapsed() > RECOVERY_MAX {
                let now = self.fleets.acknowledged();
                bail!(
                    "no acknowledgements again within {} s: {before:?} before, {now:?} now, by fleet",
                    RECOVERY_MAX.as_secs()
                );
            }
            sleep(POLL_INTERVAL);
            self.audit.acknowledge(self.fleets.news(number));
        }
        Ok(since.elapsed())
    }

    fn tell_findings(&mut self) {
        let findings = self.audit.findings();
        let news: Vec<_> = findings
            .into_iter()
            .filter(|finding| finding.wrong.is_broken_promise(self.exactly_once))
            .filter(|finding| self.told.insert(*finding))
            .collect();
        println!(
            "audit: {} acknowledged, {} promises newly broken",
            self.audit.acknowledged(),
            news.len()
        );
        for finding in news.iter().take(SHOWN_MAX) {
            let fault = finding
                .cycle
                .checked_sub(1)
                .and_then(|index| self.cycles.get(index));
            let fault = fault.map_or("the end".to_owned(), |cycle| cycle.fault.to_string());
            println!(
                "  cycle {} ({fault}): {:?} of {:?}",
                finding.cycle, finding.wrong, finding.name
            );
        }
    }
}
