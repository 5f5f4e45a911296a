//! `shopfloor dlq`: the dead letters, in the dead-letter topic and on the gateway's disk.
//!
//! Layout: [`which`] says which letters are meant, [`list`] and [`show`] read, [`settle`] replays and drops; `letter_json`
//! is a letter for programs.

mod letter_json;
mod list;
mod settle;
mod show;
mod which;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use shopfloor::config::Role;
use shopfloor_bridge::dead_letters::desk::{Desk, Source};
use shopfloor_runtime::telemetry;

use super::output::{NOT_DONE, printing};
use super::settings::ConfigFile;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a letter was not found or is still refused; 2 it could not be done, or wrong arguments.

Letters lie in Kafka's dead-letter topic and, where Kafka refused even that, on the gateway's disk. Each has the id of
its record, and a place (topic/PARTITION/OFFSET or disk/SEQUENCE). Neither a running nor a dead gateway is needed or
disturbed: what is here talks to Kafka and to the production API itself, as the configuration says.

A letter that was replayed or dropped gets a mark and is not shown any more (list --settled shows it). The mark of a
letter in the topic is a record behind it in the same partition, with the header `settled`; a topic cannot give one
record up, so the letter itself stays until retention takes it. Replaying twice changes nothing: a marked letter is
skipped, a replay that was cut off is finished after a look whether Kafka has the record, and the production API knows
a record by its id. Do not replay the same letters from two machines at the same moment.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the letters that wait for somebody, each in a line.
    #[command(after_help = EXIT_CODES)]
    List(list::Args),
    /// Print one letter whole.
    #[command(after_help = EXIT_CODES)]
    Show(show::Args),
    /// Check letters against the routes and the contract of now, and send them on their way again.
    #[command(after_help = EXIT_CODES)]
    Replay(settle::ReplayArgs),
    /// Give letters up.
    #[command(after_help = EXIT_CODES)]
    Drop(settle::DropArgs),
}

/// Whose letters.
#[derive(Debug, clap::Args)]
struct Where {
    #[command(flatten)]
    config: ConfigFile,
    /// Look at the topic alone, or at the gateway's disk alone.
    #[arg(long, value_enum, default_value_t = From::All)]
    source: From,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    All,
    Topic,
    Disk,
}

impl Where {
    fn desk(&self) -> Result<Desk> {
        let config = self.config.require(Role::Operator)?;
        let mut log = config.log;
        log.level = "warn".into();
        telemetry::init_logs(&log);
        let source = match self.source {
            From::All => Source::All,
            From::Topic => Source::Topic,
            From::Disk => Source::Disk,
        };
        Ok(Desk::open(
            config.bridge,
            &config.gateway.id,
            &config.gateway.data_dir,
            source,
        )?)
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        eprintln!("shopfloor: cannot start the async runtime");
        return ExitCode::from(NOT_DONE);
    };
    let ended = printing(|out| {
        runtime.block_on(async {
            match &args.command {
                Command::List(args) => list::run(args, out).await,
                Command::Show(args) => show::run(args, out).await,
                Command::Replay(args) => settle::replay(args, out).await,
                Command::Drop(args) => settle::give_up(args, out).await,
            }
        })
    });
    // A call to an absent Kafka may still block a thread for seconds.
    runtime.shutdown_background();
    ended
}
