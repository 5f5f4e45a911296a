//! `shopfloor spool`: what a gateway has on disk, whether it runs or not. Nothing here writes or locks.

mod status;
mod tail;
mod verify;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use shopfloor::config::Role;
use shopfloor_bridge::exchanges::EXCHANGES;
use shopfloor_bridge::spool::SpoolConfig;
use shopfloor_bridge::spool::inspect::{CursorView, Inspection};

use super::output::printing;
use super::settings::ConfigFile;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 `verify` found damage; 2 it could not be looked at, or wrong \
                          arguments.\nNothing here writes or locks: safe beside a running gateway.";

/// The cursors of what delivers; the gateway's own account of QoS 2 is not for an operator.
fn sinks(inspection: &Inspection) -> impl Iterator<Item = &CursorView> {
    inspection
        .cursors()
        .iter()
        .filter(|cursor| cursor.name != EXCHANGES)
}

/// The sinks that have not confirmed some of `sequences`.
fn undelivered_to<'a>(inspection: &'a Inspection, sequences: &Range<u64>) -> Vec<&'a str> {
    let names = inspection.undelivered_to(sequences);
    names.into_iter().filter(|name| *name != EXCHANGES).collect()
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// How much waits for which sink, since when, and how much room there is.
    #[command(after_help = EXIT_CODES)]
    Status(status::Args),
    /// Print the newest records, or those that a sink has still to deliver.
    #[command(after_help = EXIT_CODES)]
    Tail(tail::Args),
    /// Read every byte; print every problem with file, offset and sequences.
    #[command(after_help = EXIT_CODES)]
    Verify(verify::Args),
}

/// Whose spool.
#[derive(Debug, clap::Args)]
struct Where {
    #[command(flatten)]
    config: ConfigFile,
    /// The gateway's data directory, instead of its configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
}

impl Where {
    /// The data directory, and the limits where a configuration says them.
    fn data_dir(&self) -> Result<(PathBuf, Option<SpoolConfig>)> {
        if let Some(dir) = &self.data_dir {
            return Ok((dir.clone(), None));
        }
        let config = self.config.require(Role::Operator)?;
        Ok((config.gateway.data_dir, Some(config.bridge.spool)))
    }

    fn inspect(&self) -> Result<Inspection> {
        let (data_dir, _) = self.data_dir()?;
        Ok(Inspection::open(&data_dir.join("spool"))?)
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    printing(|out| match &args.command {
        Command::Status(args) => status::run(args, out),
        Command::Tail(args) => tail::run(args, out),
        Command::Verify(args) => verify::run(args, out),
    })
}
