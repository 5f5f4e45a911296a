//! Reads the configuration for a subcommand; the only place that reads the environment.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use shopfloor::config::load::Located;
use shopfloor::config::{Config, Role};

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigFile {
    /// TOML file with the settings; `SHOPFLOOR_<SECTION>__<KEY>` variables override it.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigFile {
    /// The settings, or every problem with its place.
    pub(crate) fn read(&self, role: Role) -> Result<Config, Vec<Located>> {
        // Variables that are no UTF-8 are none of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Config::read(self.config.as_deref(), environment, role)
    }

    /// The same for a command that cannot go on without them.
    pub(crate) fn require(&self, role: Role) -> Result<Config> {
        self.read(role).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            anyhow!(
                "the configuration has {} problem(s):{}",
                problems.len(),
                lines.concat()
            )
        })
    }
}
