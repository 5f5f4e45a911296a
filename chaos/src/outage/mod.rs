//! A long outage: real Kafka is stopped under a steady load, and comes back.
//!
//! What is measured meanwhile: the time to each PUBACK, and that of a page synced to the same disk beside it
//! ([`disk`]); the gateway's resident memory and its backlog for Kafka ([`watch`]). [`report`] holds them against the
//! yardsticks; missing and out of order is the auditor's, as in every run of the suite.
//!
//! The gateway has its default limits. Devices, HAProxy, the APIs, Postgres, Kafka and the auditor share its machine.

mod disk;
mod phase;
mod report;
mod watch;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::audit::Audit;
use crate::fault::Wire;
use crate::fleet::Fleets;
use crate::rig::{self, Limits, Rig, ok};
use crate::run::EXACTLY_ONCE;
use disk::Disk;
use watch::Watch;

pub use phase::{Latencies, Phase};
pub use report::Report;
pub use watch::Sample;

const WARM_UP: Duration = Duration::from_secs(15);
const UNDISTURBED: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A backlog of so much traffic is none: the gauge itself is set once a second.
const CAUGHT_UP_S: u64 = 2;
const SEED: u64 = 1;

/// What a run does.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long Kafka is stopped.
    pub outage: Duration,
    /// Messages a second, over all devices.
    pub rate_per_s: u32,
    /// `bridge.kafka.delivery` of the gateway; its default where none is given.
    pub delivery: Option<String>,
}

/// Runs it, saying what it does on the way. `None` where real Kafka cannot be had and need not be.
pub fn run(options: &Options) -> Result<Option<Report>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rig = Rig::start(
        runtime.handle(),
        &rig::Options {
            faults: &[],
            delivery: options.delivery.as_deref(),
            limits: Limits::Default,
        },
    );
    let Some(mut rig) = rig else {
        return Ok(None);
    };
    let devices = rig.wires.get(Wire::Devices).address();
    let fleets = Fleets::start(runtime.handle(), devices, rig.dir(), options.rate_per_s, SEED);
    let mut watch = Watch::new(
        fleets,
        Audit::new(&rig.kafka.bootstrap()),
        Disk::watch(rig.dir())?,
    );
    let done = phases(options, &mut rig, &mut watch).and_then(|()| watch.finish(runtime.handle(), &rig));
    match done {
        Err(error) => {
            let logs = rig.keep();
            Err(error.context(format!("the run ended early; its logs are in {}", logs.display())))
        }
        Ok(()) => {
            let report = Report::new(options, watch.account()?);
            if !report.is_good() {
                println!("logs are in {}", rig.keep().display());
            }
            Ok(Some(report))
        }
    }
}

fn phases(options: &Options, rig: &mut Rig, watch: &mut Watch) -> Result<()> {
    watch.during(WARM_UP, rig);
    watch.enter(Phase::Before, rig);
    watch.during(UNDISTURBED, rig);
    ok(rig.kafka.kill());
    watch.enter(Phase::During, rig);
    watch.during(options.outage, rig);
    watch.enter(Phase::Starting, rig);
    start_kafka(rig, watch);
    watch.enter(Phase::Draining, rig);
    // As long as it grew: a backlog that drains no faster is caught up then or never.
    let (since, patience) = (Instant::now(), options.outage.max(UNDISTURBED));
    while watch.backlog() > CAUGHT_UP_S * u64::from(options.rate_per_s) {
        if since.elapsed() > patience {
            bail!(
                "{} records still wait for Kafka, {patience:?} after it came back: the backlog drains no faster than it grew",
                watch.backlog()
            );
        }
        sleep(LOOK_INTERVAL);
        watch.look(rig);
    }
    watch.enter(Phase::After, rig);
    watch.during(UNDISTURBED, rig);
    Ok(())
}

fn start_kafka(rig: &mut Rig, watch: &mut Watch) {
    let Rig { kafka, gateway, .. } = rig;
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| kafka.restart());
        while !starting.is_finished() {
            sleep(LOOK_INTERVAL);
            watch.look_at(gateway);
        }
        ok(starting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
}

fn is_exactly_once(options: &Options) -> bool {
    options.delivery.as_deref() == Some(EXACTLY_ONCE)
}
