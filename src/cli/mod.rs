//! The subcommands.
//!
//! Layout: [`settings`] reads the configuration for all of them; then one file each: [`gateway`], [`api`], [`up`]
//! (everything at once, for a first look and for `make run`), [`simulate`], [`check`], [`passwd`], [`spool`], [`dlq`].
//! [`open_files`] fits a gateway's connections to the process's limit; [`output`] and [`plain`] are for those that print
//! what machines sent.

mod api;
mod check;
mod dlq;
mod gateway;
mod open_files;
mod output;
mod passwd;
mod plain;
mod settings;
mod simulate;
mod spool;
mod up;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// The gateway between a factory's MQTT machines and its data platform.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take MQTT messages in, make them durable, bring them to Kafka and the production API.
    Gateway(gateway::Args),
    /// Serve the production API over Postgres.
    Api(api::Args),
    /// Start everything on this machine and run a short simulated shift.
    Up(up::Args),
    /// Be a factory: publish as many machines over MQTT.
    Simulate(simulate::Args),
    /// Read the configuration and print every problem with its place.
    Check(check::Args),
    /// Set or remove a user of an MQTT password file.
    Passwd(passwd::Args),
    /// Look at what a gateway has on disk, whether it runs or not.
    Spool(spool::Args),
    /// List, show, replay and drop the dead letters.
    Dlq(dlq::Args),
}

/// One line for the person at the terminal; logs go to standard error.
#[allow(clippy::print_stdout)]
fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Runs one subcommand to its end.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Check(args) => return Ok(check::run(args)),
        Command::Passwd(args) => return passwd::run(args),
        Command::Spool(args) => return Ok(spool::run(args)),
        Command::Dlq(args) => return Ok(dlq::run(args)),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    // What they had to make durable is by then; a call to an absent Kafka may still block a thread for seconds.
    let leaves_calls_behind = matches!(cli.command, Command::Gateway(_) | Command::Api(_));
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Gateway(args) => gateway::run(args).await,
            Command::Api(args) => api::run(args).await,
            Command::Up(args) => up::run(args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Check(args) => Ok(check::run(&args)),
            Command::Passwd(args) => passwd::run(&args),
            Command::Spool(args) => Ok(spool::run(&args)),
            Command::Dlq(args) => Ok(dlq::run(&args)),
        }
    });
    if leaves_calls_behind {
        runtime.shutdown_background();
    }
    outcome
}
