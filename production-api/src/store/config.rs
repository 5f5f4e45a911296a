//! What the store can be told.

use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::check_ranges;
use shopfloor_runtime::problem::Problem;
use tokio_postgres::config::SslMode;

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
        if let Err((problem, remedy)) = check_url(&self.url) {
            out.push(Problem::new(format!("{at}.url"), problem, remedy));
        }
        check_ranges!(self, at, out, {
            max_connections: 1..=1_000,
            connect_timeout_ms: 50..=60_000,
            statement_timeout_ms: 50..=600_000,
            list_timeout_ms: 50..=3_600_000,
        });
    }
}

/// Says why `url` cannot be used, and what to do. Nothing of the url is shown: it may hold a password.
fn check_url(url: &str) -> Result<(), (String, &'static str)> {
    const FORM: &str = "write postgres://user:password@host:port/database";
    match url.parse::<tokio_postgres::Config>() {
        Ok(config) if config.get_hosts().is_empty() => Err(("names no host".into(), FORM)),
        Ok(config) if config.get_ssl_mode() == SslMode::Require => Err((
            "asks for TLS (sslmode=require), which connections to Postgres do not have here".into(),
            "leave sslmode out, and let the network between the two be a private one or a tunnel",
        )),
        Ok(_) => Ok(()),
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let remedy = if cause.contains("sslmode") {
                "leave sslmode out, or use disable or prefer"
            } else {
                FORM
            };
            Err((format!("is no Postgres address: {cause}"), remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said_with_the_remedy_that_fits() {
        assert_eq!(
            check_url("postgres://u:p@host:5432/factory?sslmode=prefer"),
            Ok(())
        );
        for (url, problem, remedy) in [
            ("postgres:///factory", "no host", "user:password@host"),
            (
                "mysql://host/factory",
                "no Postgres address",
                "user:password@host",
            ),
            ("postgres://host:port/factory", "port", "user:password@host"),
            (
                "postgres://host/factory?sslmode=verify-full",
                "sslmode",
                "leave sslmode out",
            ),
            (
                "postgres://host/factory?sslmode=require",
                "TLS",
                "leave sslmode out",
            ),
        ] {
            let (said, to_do) = check_url(url).unwrap_err();
            assert!(
                said.contains(problem) && to_do.contains(remedy),
                "{url}: {said}; {to_do}"
            );
        }
    }
}
