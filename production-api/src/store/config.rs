//! What the store can be told.

use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::check_ranges;
use shopfloor_runtime::problem::Problem;

/// The Postgres database and the pool of connections to it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    pub max_connections: usize,
    /// Time to get a connection, from the pool or anew.
    pub connect_timeout_ms: u64,
    /// Time for one statement; Postgres ends it then.
    pub statement_timeout_ms: u64,
    /// Time for a list that is written as its rows come, in which its client must have read it.
    pub list_timeout_ms: u64,
}

/// Without secrets.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("url", &"not shown")
            .field("max_connections", &self.max_connections)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .field("list_timeout_ms", &self.list_timeout_ms)
            .finish()
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: "postgres://shopfloor@127.0.0.1:5432/shopfloor".into(),
            max_connections: 16,
            connect_timeout_ms: 3_000,
            statement_timeout_ms: 10_000,
            list_timeout_ms: 60_000,
        }
    }
}

impl DatabaseConfig {
    /// Appends every problem of the values; `at` is the path of this section.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if let Err(error) = check_url(&self.url) {
            out.push(Problem::new(
                format!("{at}.url"),
                error,
                "write postgres://user:password@host:port/database",
            ));
        }
        check_ranges!(self, at, out, {
            max_connections: 1..=1_000,
            connect_timeout_ms: 50..=60_000,
            statement_timeout_ms: 50..=600_000,
            list_timeout_ms: 50..=3_600_000,
        });
    }
}

/// Says why `url` is no Postgres address.
fn check_url(url: &str) -> Result<(), String> {
    match url.parse::<tokio_postgres::Config>() {
        Ok(config) if config.get_hosts().is_empty() => Err("names no host".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is no Postgres address: {error}")),
    }
}
