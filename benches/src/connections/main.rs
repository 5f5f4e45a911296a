//! What many connections cost a real gateway, and whom they delay: `make connections CONNECTIONS=10000`.
//!
//! - [`gateway`]: the release binary, its configuration, its resident memory.
//! - [`device`]: one connection of a device, as bytes.
//! - [`crowd`]: so many of them at once, from several addresses.
//! - [`steady`]: publishers that go on through everything, and how long each PUBACK took.
//! - [`report`]: the table, the yardsticks and the last line.
//!
//! Everything goes over loopback: clients and gateway share this machine's cores.
// It reports to standard output.
#![allow(clippy::print_stdout)]

mod crowd;
mod device;
mod gateway;
mod report;
mod steady;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crowd::{Crowd, Newcomers, Silence};
use gateway::Gateway;
use report::{Report, Row};
use steady::Steady;

/// Publishers alone, to compare with.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// Open files of either side beside the connections.
const FURTHER_FILES: u64 = 1_000;

/// What idle connections cost a gateway, and what storms of connections do to publishers.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    connections: u32,
}

fn main() -> Result<ExitCode> {
    let count = Args::parse().connections as usize;
    allow_open_files(count as u64)?;
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    let report = runtime.block_on(measure(count))?;
    println!("{report}");
    Ok(match report.missed().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The gateway that is started later inherits the limit.
fn allow_open_files(connections: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    // A gateway with fewer files than its places take shares them between its two listeners.
    let needed = 2 * connections + FURTHER_FILES;
    // All of its places: three a connection on each listener (`gateway.rs`).
    let wanted = 6 * connections + FURTHER_FILES;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    for files in [wanted, limit.maximum.unwrap_or(wanted).min(wanted)] {
        let raised = Rlimit {
            current: Some(files),
            // Over the maximum it takes root.
            maximum: limit.maximum.map(|maximum| maximum.max(files)),
        };
        if files >= needed && setrlimit(Resource::Nofile, raised).is_ok() {
            return Ok(());
        }
    }
    bail!(
        "this takes {needed} open files and the limit is {}: raise it (`ulimit -Hn {wanted}` as root), or measure fewer \
         with CONNECTIONS=",
        limit.maximum.unwrap_or_default()
    )
}

async fn measure(count: usize) -> Result<Report> {
    let mut report = Report::new(count);
    report.add(idle_over_tls(count).await?);

    let gateway = Gateway::start(count)?;
    let before = gateway.settled_kib().await?;
    let plain = gateway.plain();
    let mut crowd = Crowd::connect(count, plain.clone()).await?;
    let kib = gateway.settled_kib().await?.saturating_sub(before);
    report.add(Row::idle("idle", crowd.len(), kib));
    crowd.take_part().await?;
    let kib = gateway.settled_kib().await?.saturating_sub(before);
    report.add(Row::idle(
        "idle, each subscribed and with a message sent",
        crowd.len(),
        kib,
    ));

    let steady = Steady::start(gateway.address())?;
    let mut phases = Vec::new();
    let begun = Instant::now();
    tokio::time::sleep(UNDISTURBED).await;
    phases.push((Row::new("publishers alone with them"), begun..Instant::now()));

    let begun = Instant::now();
    let storm = crowd.reconnect().await?;
    let row = Row::new("all cut, and connecting again at once").reconnected(&storm);
    phases.push((row, begun..Instant::now()));

    // Silent ones come in their place: both together would be over most systems' limit of open files.
    drop(crowd);
    for (name, wire) in [
        ("silent connections, no CONNECT", plain),
        ("the same over TLS, no ClientHello", gateway.tls()),
    ] {
        let begun = Instant::now();
        let newcomers = Newcomers::start(wire.clone());
        let silence = Silence::keep(count, wire.address()).await?;
        let row = Row::new(name).ended(&silence).newcomers(newcomers.stop().await?);
        phases.push((row, begun..Instant::now()));
    }

    // A late PUBACK belongs to the phase in which its message was due.
    let published = steady.stop()?;
    for (row, time) in phases {
        report.add(row.pubacks(&published.due_in(&time)));
    }
    report.unacknowledged = published.unacknowledged;
    Ok(report)
}

/// On a gateway of its own: memory that other connections gave back would be used again.
async fn idle_over_tls(count: usize) -> Result<Row> {
    let gateway = Gateway::start(count)?;
    let before = gateway.settled_kib().await?;
    let crowd = Crowd::connect(count, gateway.tls()).await?;
    let kib = gateway.settled_kib().await?.saturating_sub(before);
    Ok(Row::idle("idle over TLS 1.3", crowd.len(), kib))
}
