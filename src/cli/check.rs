//! `shopfloor check`: every problem of the configuration, with its place.

use std::process::ExitCode;

use super::settings::ConfigFile;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub fn run(args: &Args) -> ExitCode {
    match args.config.read() {
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
