//! `shopfloor simulate`.

use std::process::ExitCode;

use anyhow::Result;
use shopfloor::simulate::{self, SimulateArgs};
use shopfloor_runtime::{shutdown, telemetry};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    simulate: SimulateArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    telemetry::init_logs(&telemetry::LogConfig {
        level: "warn,rumqttc=off".into(),
        ..Default::default()
    });
    let stop = shutdown::on_signal()?;
    let summary = simulate::run(args.simulate.into_config()?, stop).await?;
    super::say(&summary);
    Ok(if summary.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
