//! Whose tokens are taken.

use std::path::{Path, PathBuf};

use http::Uri;
use serde::Deserialize;

use crate::check_ranges;
use crate::problem::Problem;

/// An identity provider. Without `jwks` no tokens are taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenConfig {
    /// Where the provider's keys are: an http or https address, or the path of a file.
    pub jwks: Option<String>,
    /// PEM file of the authority behind the https address; none: the system's authorities.
    pub jwks_ca: Option<PathBuf>,
    /// The `iss` of its tokens.
    pub issuer: Option<String>,
    /// What must be in `aud`.
    pub audience: Option<String>,
    /// The claim that names the user.
    pub user_claim: String,
    /// Clocks may differ by this.
    pub leeway_s: u64,
    /// Keys are fetched again after this.
    pub refresh_interval_s: u64,
    pub fetch_timeout_ms: u64,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            jwks: None,
            jwks_ca: None,
            issuer: None,
            audience: None,
            user_claim: "sub".into(),
            leeway_s: 30,
            refresh_interval_s: 300,
            fetch_timeout_ms: 5_000,
        }
    }
}

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Address(Uri),
    File(PathBuf),
}

impl Location {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let address: Uri = text.parse().map_err(|error| format!("is no address: {error}"))?;
        match address.scheme_str() {
            Some("http" | "https") if address.host().is_some() => Ok(Self::Address(address)),
            _ => Err("is neither an http or https address nor a file".into()),
        }
    }
}

impl TokenConfig {
    pub fn is_on(&self) -> bool {
        self.jwks.is_some()
    }

    /// Appends every problem; `at` is the path of this struct. Files are looked at, addresses are not.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            refresh_interval_s: 10..=86_400,
            leeway_s: 0..=600,
            fetch_timeout_ms: 100..=60_000,
        });
        let Some(jwks) = &self.jwks else { return };
        match Location::parse(jwks) {
            Ok(Location::Address(_)) => {}
            Ok(Location::File(file)) => check_file(&file, &format!("{at}.jwks"), out),
            Err(why) => out.push(Problem::new(
                format!("{at}.jwks"),
                why,
                "give the provider's jwks_uri, for example https://host/realms/NAME/protocol/openid-connect/certs",
            )),
        }
        if let Some(file) = &self.jwks_ca {
            check_file(file, &format!("{at}.jwks_ca"), out);
        }
        let lacks = |value: &Option<String>| value.as_ref().is_none_or(String::is_empty);
        for (key, lacking) in [
            ("issuer", lacks(&self.issuer)),
            ("audience", lacks(&self.audience)),
        ] {
            if lacking {
                out.push(Problem::new(
                    format!("{at}.{key}"),
                    "is not given, so that any token of the provider would do",
                    "give what the tokens for this server hold",
                ));
            }
        }
        if self.user_claim.is_empty() {
            out.push(Problem::new(
                format!("{at}.user_claim"),
                "is empty",
                "name a claim, such as sub or preferred_username",
            ));
        }
    }
}

fn check_file(file: &Path, at: &str, out: &mut Vec<Problem>) {
    if let Err(error) = std::fs::File::open(file) {
        out.push(Problem::new(
            at,
            format!("{} cannot be read: {error}", file.display()),
            "name a file that this process may read",
        ));
    }
}
