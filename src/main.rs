//! The `shopfloor` command: arguments, logs, runtime, one subcommand.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shopfloor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
