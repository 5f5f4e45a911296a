//! `shopfloor-chaos`: a run from the command line. `make chaos` calls it.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use shopfloor_chaos::fault::Fault;
use shopfloor_chaos::run::{Options, run};

/// Faults under load, and an account of every acknowledged message afterwards.
#[derive(Debug, Parser)]
struct Args {
    /// How many faults.
    #[arg(long, default_value_t = 60)]
    cycles: usize,
    /// The same seed, the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's bridge.kafka.delivery; its default where none is given.
    #[arg(long)]
    delivery: Option<String>,
    /// The faults to draw from, comma-separated: names, or groups such as kill; all where none is given.
    #[arg(long, default_value = "")]
    faults: String,
    /// Messages a second, over all devices.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    rate: u32,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let options = Options {
        cycles: args.cycles,
        seed: args.seed,
        delivery: args.delivery.filter(|delivery| !delivery.is_empty()),
        faults: Fault::chosen(&args.faults).map_err(anyhow::Error::msg)?,
        rate_per_s: args.rate,
        audit_every: 20,
    };
    let Some(report) = run(&options)? else {
        // Why was said already.
        return Ok(ExitCode::FAILURE);
    };
    println!("{report}");
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
