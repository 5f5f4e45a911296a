//! Who may do what: bearer tokens of an OpenID Connect provider, off unless its issuer is named.
//!
//! Layout, in the order in which a request passes:
//!
//! - `config`: the provider, and where its tokens hold roles.
//! - `authenticate`: the token to a [`Caller`], before the body is read.
//! - `roles`: the role that each operation asks for.
//! - `authorize`: the caller's role against it, once the route is known.
//!
//! Promise: with a provider named nothing of the REST contract is answered without a proven token, also while the
//! provider's keys cannot be had. `/internal` has a token of its own.

mod authenticate;
mod authorize;
mod config;
mod roles;

use shopfloor_runtime::jwks::TokenVerifier;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use authenticate::authenticate;
pub(crate) use authorize::authorize;
pub use config::IdentityConfig;
pub(crate) use roles::{Role, required};

/// Verifies tokens and reads roles. Clones share the provider's keys.
#[derive(Debug, Clone)]
pub struct Identity {
    config: IdentityConfig,
    /// `None` where the provider's settings cannot be used: then nobody is let in.
    verifier: Option<TokenVerifier>,
}

impl Identity {
    /// `None` where no provider is named.
    pub(crate) fn new(config: &IdentityConfig) -> Option<Self> {
        let tokens = config.tokens()?;
        let verifier = TokenVerifier::new(&tokens)
            .inspect_err(|error| tracing::error!(%error, "api.identity cannot be used: nobody is let in"));
        Some(Self {
            config: config.clone(),
            verifier: verifier.ok(),
        })
    }

    /// Fetches the provider's keys now, and again in time.
    pub(crate) fn start(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        if let Some(verifier) = self.verifier.clone() {
            tasks.spawn(verifier.keep_fresh(stop.clone()));
        }
    }

    /// For the admin endpoint's `/ready`.
    pub fn ready(&self) -> Result<(), String> {
        match &self.verifier {
            Some(verifier) if verifier.has_keys() => Ok(()),
            Some(_) => Err("the identity provider's keys are not there yet".into()),
            None => Err("api.identity cannot be used".into()),
        }
    }
}

/// Who sent a request. A request extension.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: String,
    /// The highest of their roles.
    role: Option<Role>,
}
