//! Signed tokens (JWT) of an identity provider such as Keycloak, and the keys that it signs them with.
//!
//! - [`config`]: whose tokens are taken.
//! - [`fetch`]: the provider's key set (JWKS), over http, https or from a file.
//! - [`keys`]: the keys in memory, renewed in time and when a token names one that is not there.
//! - this file: what a token says, once it is proven.
//!
//! ```no_run
//! # async fn example(config: shopfloor_runtime::jwks::TokenConfig, stop: tokio_util::sync::CancellationToken) {
//! # use shopfloor_runtime::jwks::TokenVerifier;
//! let verifier = TokenVerifier::new(&config).unwrap();
//! tokio::spawn(verifier.clone().keep_fresh(stop));      // the first fetch is at once
//! match verifier.verify("eyJhbGciOi...").await {
//!     Ok(token) => println!("{} until {}", token.user, token.expires_s),
//!     Err(error) => println!("refused ({}): {error}", error.kind()),
//! }
//! # }
//! ```
//!
//! Promise: a token is taken only with a signature by one of the provider's asymmetric keys, from its issuer, for this
//! audience and in its time. Whatever strangers send costs the provider at most one request in ten seconds, and
//! while it cannot be reached the keys that are there stay good.

mod config;
mod fetch;
mod keys;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub use config::TokenConfig;
pub use fetch::FetchError;
use keys::Keys;

/// Tokens of Keycloak with many roles are a few kilobytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Verifies tokens. Clones share their keys.
#[derive(Debug, Clone)]
pub struct TokenVerifier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: TokenConfig,
    keys: Keys,
}

/// What a proven token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The claim that the configuration names.
    pub user: String,
    /// Seconds since the Unix epoch.
    pub expires_s: u64,
    pub claims: Map<String, Value>,
}

/// Why a token is not taken. No text holds anything of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is no signed token")]
    Malformed,
    #[error("tokens are signed by an algorithm that is not taken here")]
    Algorithm,
    #[error("the identity provider has no such key")]
    UnknownKey,
    #[error("the identity provider's keys could not be fetched")]
    NoKeys,
    #[error("the signature is wrong")]
    Signature,
    #[error("the token has expired or is not valid yet")]
    Time,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token names no user")]
    NoUser,
}

impl TokenError {
    /// Label for a metric.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::NoKeys => "no_keys",
            Self::Signature => "signature",
            Self::Time => "time",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoUser => "no_user",
        }
    }
}

impl TokenVerifier {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// The address of the key set is none, or the file of its authority cannot be read.
    pub fn new(config: &TokenConfig) -> Result<Self, FetchError> {
        let inner = Inner {
            keys: Keys::new(config)?,
            config: config.clone(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Fetches the keys now.
    ///
    /// # Errors
    /// The provider or the file did not give a key set; the keys that were there stay.
    pub async fn fetch(&self) -> Result<(), FetchError> {
        self.inner.keys.fetch().await
    }

    /// Fetches the keys now and renews them until `stop`.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.inner.keys.keep_fresh()).await;
    }

    /// Whether there are keys to verify with.
    pub fn has_keys(&self) -> bool {
        !self.inner.keys.is_empty()
    }

    /// Proves a token. Waits for the provider only where the token names a key that is not there.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn verify(&self, token: &str) -> Result<Token, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if !is_asymmetric(header.alg) {
            return Err(TokenError::Algorithm);
        }
        let key = self.inner.keys.find(header.kid.as_deref(), header.alg).await?;
        let Inner { config, .. } = &*self.inner;
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(config.issuer.as_slice());
        validation.set_audience(config.audience.as_slice());
        validation.validate_nbf = true;
        validation.leeway = config.leeway_s;
        let claims = decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        let expires_s = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let user = claims.get(&config.user_claim).and_then(Value::as_str);
        match user {
            Some(user) if !user.is_empty() => Ok(Token {
                user: user.to_owned(),
                expires_s: expires_s as u64,
                claims,
            }),
            _ => Err(TokenError::NoUser),
        }
    }
}

/// A key set is public: what is signed with a shared secret proves nothing.
fn is_asymmetric(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn refusal(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => TokenError::Time,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => TokenError::Issuer,
            "aud" => TokenError::Audience,
            _ => TokenError::Time,
        },
        _ => TokenError::Malformed,
    }
}
