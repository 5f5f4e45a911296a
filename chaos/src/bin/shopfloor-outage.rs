//! `shopfloor-outage`: a long outage of Kafka, from the command line. `make outage` calls it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use shopfloor_chaos::outage::{Options, run};

/// Real Kafka is stopped under a steady load; what that does to acknowledgements, memory and the backlog.
#[derive(Debug, Parser)]
struct Args {
    /// How long Kafka is away; long enough for the gateway's bounded buffers to fill in the first half.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Messages a second, over all devices.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    rate: u32,
    /// The gateway's bridge.kafka.delivery; its default where none is given.
    #[arg(long)]
    delivery: Option<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let options = Options {
        outage: Duration::try_from_secs_f64(args.minutes * 60.0)?,
        rate_per_s: args.rate,
        delivery: args.delivery.filter(|delivery| !delivery.is_empty()),
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
