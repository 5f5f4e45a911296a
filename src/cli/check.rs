//! `shopfloor check`: every problem of the configuration, with its place.

use std::process::ExitCode;

use shopfloor::config::Role;

use super::settings::ConfigFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match args.config.read(Role::Written) {
        Ok(_) => {
            eprintln!("the configuration has no problem");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            ExitCode::FAILURE
        }
    }
}
