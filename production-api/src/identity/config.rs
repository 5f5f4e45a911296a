//! The provider, and where its tokens hold roles.

use std::path::PathBuf;

use serde::Deserialize;
use shopfloor_runtime::Problem;
use shopfloor_runtime::jwks::TokenConfig;

/// An OpenID Connect provider. Without `issuer` every client may do everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// The provider's `iss`, as its tokens have it.
    pub issuer: Option<String>,
    /// What must be in a token's `aud`.
    pub audience: String,
    /// JSON pointers into a token's claims, each to a list of roles or to one role.
    pub role_claims: Vec<String>,
    /// Address or file of the provider's keys; none: as `<issuer>/.well-known/openid-configuration` says.
    pub jwks: Option<String>,
    /// PEM file of the authority behind an https address; none: the system's authorities.
    pub jwks_ca: Option<PathBuf>,
    /// The claim that names the user, for the log.
    pub user_claim: String,
    /// Clocks may differ by this.
    pub leeway_s: u64,
    /// Keys are fetched again after this.
    pub refresh_interval_s: u64,
    pub fetch_timeout_ms: u64,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let tokens = TokenConfig::default();
        Self {
            issuer: None,
            audience: "shopfloor-api".into(),
            role_claims: vec![
                "/realm_access/roles".into(),
                "/resource_access/shopfloor-api/roles".into(),
            ],
            jwks: None,
            jwks_ca: None,
            user_claim: tokens.user_claim,
            leeway_s: tokens.leeway_s,
            refresh_interval_s: tokens.refresh_interval_s,
            fetch_timeout_ms: tokens.fetch_timeout_ms,
        }
    }
}

impl IdentityConfig {
    /// What tokens are verified by; `None` where no provider is named.
    pub(super) fn tokens(&self) -> Option<TokenConfig> {
        let issuer = self.issuer.as_deref()?;
        let discovery = || {
            format!(
                "{}/.well-known/openid-configuration",
                issuer.trim_end_matches('/')
            )
        };
        Some(TokenConfig {
            jwks: Some(self.jwks.clone().unwrap_or_else(discovery)),
            jwks_ca: self.jwks_ca.clone(),
            issuer: Some(issuer.to_owned()),
            audience: Some(self.audience.clone()),
            user_claim: self.user_claim.clone(),
            leeway_s: self.leeway_s,
            refresh_interval_s: self.refresh_interval_s,
            fetch_timeout_ms: self.fetch_timeout_ms,
        })
    }

    pub(crate) fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        match self.tokens() {
            Some(tokens) => {
                let before = out.len();
                tokens.problems(at, out);
                if self.jwks.is_none() && !is_address(&tokens.issuer) {
                    // The address of the keys was made of it, and is none of the operator's settings.
                    let of_keys = format!("{at}.jwks");
                    let mut others = out.split_off(before);
                    others.retain(|problem| problem.path != of_keys);
                    out.push(Problem::new(
                        format!("{at}.issuer"),
                        "is no http or https address, at which the provider's keys would be found",
                        format!("write the iss of its tokens, for example https://host/realms/NAME, or set {at}.jwks too"),
                    ));
                    out.append(&mut others);
                }
            }
            None => {
                for (key, given) in [("jwks", self.jwks.is_some()), ("jwks_ca", self.jwks_ca.is_some())] {
                    if given {
                        out.push(Problem::new(
                            format!("{at}.{key}"),
                            "does nothing without an issuer",
                            format!("set {at}.issuer too, or leave it out"),
                        ));
                    }
                }
            }
        }
        for (index, pointer) in self.role_claims.iter().enumerate() {
            if !pointer.starts_with('/') {
                out.push(Problem::new(
                    format!("{at}.role_claims[{index}]"),
                    format!("{pointer:?} is no JSON pointer"),
                    "write the path of a claim, for example /realm_access/roles",
                ));
            }
        }
        if self.role_claims.is_empty() {
            out.push(Problem::new(
                format!("{at}.role_claims"),
                "is empty, so that nobody has a role",
                "name the claim that holds roles, for example /realm_access/roles",
            ));
        }
    }
}

fn is_address(issuer: &Option<String>) -> bool {
    let address = issuer
        .as_ref()
        .and_then(|issuer| issuer.parse::<http::Uri>().ok());
    address.is_some_and(|address| {
        matches!(address.scheme_str(), Some("http" | "https")) && address.host().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &IdentityConfig) -> Vec<String> {
        let mut out = Vec::new();
        config.problems("api.identity", &mut out);
        out.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn one_setting_turns_it_on_and_the_keys_are_where_the_issuer_says() {
        assert!(IdentityConfig::default().tokens().is_none());
        let config = IdentityConfig {
            issuer: Some("https://id/realms/plant/".into()),
            ..IdentityConfig::default()
        };
        assert_eq!(problems(&config), [""; 0]);
        let tokens = config.tokens().unwrap();
        assert_eq!(
            tokens.jwks.as_deref(),
            Some("https://id/realms/plant/.well-known/openid-configuration")
        );
        assert_eq!(tokens.audience.as_deref(), Some("shopfloor-api"));
    }

    #[test]
    fn settings_that_let_anyone_or_nobody_in_are_named() {
        let config = IdentityConfig {
            jwks: Some("https://id/certs".into()),
            role_claims: vec!["realm_access.roles".into()],
            ..IdentityConfig::default()
        };
        assert_eq!(
            problems(&config),
            ["api.identity.jwks", "api.identity.role_claims[0]"]
        );
        let config = IdentityConfig {
            issuer: Some("no address".into()),
            audience: String::new(),
            role_claims: Vec::new(),
            ..IdentityConfig::default()
        };
        assert_eq!(
            problems(&config),
            [
                "api.identity.issuer",
                "api.identity.audience",
                "api.identity.role_claims"
            ]
        );
    }
}
