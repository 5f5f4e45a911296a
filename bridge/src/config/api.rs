//! What an operator can set about the way to the production API.

use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::{Problem, check_ranges};

/// The sink that posts to the production API.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSinkConfig {
    /// `http://host:port` of the API or of the balancer before it; none turns the sink off.
    pub url: Option<String>,
    /// Bearer token that the API expects; none sends no `Authorization`.
    pub token: Option<String>,
    /// Most records in one request.
    pub max_batch_records: u32,
    /// Most bytes in one request's body.
    pub max_batch_bytes: u32,
    /// How long one request may take before it is sent again.
    pub timeout_ms: u32,
    /// Longest pause between two tries of one batch.
    pub max_backoff_ms: u32,
}

/// Without secrets.
impl fmt::Debug for ApiSinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiSinkConfig")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "not shown"))
            .field("max_batch_records", &self.max_batch_records)
            .field("max_batch_bytes", &self.max_batch_bytes)
            .field("timeout_ms", &self.timeout_ms)
            .field("max_backoff_ms", &self.max_backoff_ms)
            .finish()
    }
}

impl Default for ApiSinkConfig {
    fn default() -> Self {
        Self {
            url: None,
            token: None,
            max_batch_records: 1_000,
            max_batch_bytes: 512 * 1024,
            timeout_ms: 10_000,
            max_backoff_ms: 10_000,
        }
    }
}

impl ApiSinkConfig {
    /// Appends every semantic problem.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if let Some(url) = &self.url {
            let parsed: Option<http::Uri> = url.parse().ok();
            let usable = parsed.is_some_and(|uri| {
                uri.scheme_str() == Some("http") && uri.host().is_some() && matches!(uri.path(), "" | "/")
            });
            if url.contains('@') {
                out.push(Problem::new(
                    format!("{at}.url"),
                    "it holds a user name or password, which are not sent",
                    "write http://host:port, and the secret into token",
                ));
            } else if !usable {
                out.push(Problem::new(
                    format!("{at}.url"),
                    format!("{url:?} is not a base URL"),
                    "write http://host:port without a path",
                ));
            }
        }
        if let Some(token) = &self.token
            && http::HeaderValue::from_str(token).is_err()
        {
            out.push(Problem::new(
                format!("{at}.token"),
                "it holds a character that an HTTP header cannot carry",
                "use visible ASCII characters",
            ));
        }
        check_ranges!(self, at, out, {
            max_batch_records: 1..=100_000,
            max_batch_bytes: 1_024..=64 * 1024 * 1024,
            timeout_ms: 10..=600_000,
            max_backoff_ms: 10..=600_000,
        });
    }
}
