//! Who a client is, and what it may do.
//!
//! - this file: who it is. A client certificate says it first, then a token, then a password; else it is anonymous.
//! - [`certificate`]: the name in a client's certificate.
//! - [`passwords`]: users with hashed passwords (`password_file`), and what checking them may cost.
//! - [`acl`]: what it may publish and subscribe to.

pub(crate) mod acl;
mod certificate;
pub(crate) mod passwords;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use shopfloor_runtime::jwks::{TokenConfig, TokenError, TokenVerifier};
use shopfloor_runtime::reload::Reload;
use shopfloor_runtime::tls::ClientCertificate;
use tokio::time::Instant;

use crate::config::{AuthConfig, CertificateName};
use passwords::{Busy, Passwords};

/// Decides on a CONNECT.
#[derive(Debug)]
pub(crate) struct Authenticator {
    allow_anonymous: bool,
    certificate_name: CertificateName,
    /// Those of the configuration itself.
    users: HashMap<String, String>,
    pub(crate) passwords: Arc<Passwords>,
    token_config: TokenConfig,
    tokens: OnceLock<TokenVerifier>,
}

/// What a client says of itself.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) certificate: Option<ClientCertificate>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Bytes>,
}

/// Who it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None` for an anonymous client.
    pub(crate) user: Option<String>,
    /// When the token that says so ends.
    pub(crate) expires: Option<Instant>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("the client gave no user name and anonymous clients are not allowed")]
    Anonymous,
    #[error("the client's certificate has no name that this server takes for a user")]
    NamelessCertificate,
    #[error("the user name or the password is wrong")]
    BadCredentials,
    #[error("{0}")]
    Token(TokenError),
    #[error("too many passwords are being checked; try again later")]
    Busy,
}

impl AuthError {
    /// Label of the metric.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::NamelessCertificate => "certificate_name",
            Self::BadCredentials => "bad_credentials",
            Self::Token(error) => match error {
                TokenError::Time => "token_time",
                TokenError::NoKeys => "token_no_keys",
                _ => "token",
            },
            Self::Busy => "password_checks",
        }
    }
}

impl Authenticator {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let users = config
            .users
            .iter()
            .map(|user| (user.name.clone(), user.password.clone()))
            .collect();
        Self {
            allow_anonymous: config.allow_anonymous,
            certificate_name: config.certificate_name,
            users,
            passwords: Arc::new(Passwords::new(config)),
            token_config: config.jwt.clone(),
            tokens: OnceLock::new(),
        }
    }

    /// Reads the password file and prepares for tokens; until then neither is taken.
    pub(crate) fn load(&self) -> Result<(), String> {
        self.passwords.reload()?;
        if self.token_config.is_on() && self.tokens.get().is_none() {
            let verifier = TokenVerifier::new(&self.token_config).map_err(|error| error.to_string())?;
            let _set_before = self.tokens.set(verifier);
        }
        Ok(())
    }

    pub(crate) fn tokens(&self) -> Option<&TokenVerifier> {
        self.tokens.get()
    }

    /// A certificate or a token says who its client is, whatever user name CONNECT has. A client that gives a user name
    /// and neither is held to its password, unless there are no users at all.
    pub(crate) async fn authenticate(&self, credentials: Credentials) -> Result<Identity, AuthError> {
        let Credentials {
            certificate,
            user,
            password,
        } = credentials;
        if let Some(certificate) = certificate
            && self.certificate_name != CertificateName::None
        {
            let name = certificate::name(&certificate, self.certificate_name);
            return name.map(named).ok_or(AuthError::NamelessCertificate);
        }
        let password = password.unwrap_or_default();
        if let Some(token) = as_token(&password)
            && let Some(tokens) = self.tokens()
        {
            let token = tokens.verify(token).await.map_err(AuthError::Token)?;
            let until_s = token.expires_s.saturating_add(self.token_config.leeway_s);
            return Ok(Identity {
                user: Some(token.user),
                expires: Some(moment(until_s)),
            });
        }
        let Some(user) = user else {
            return if self.allow_anonymous {
                Ok(Identity::default())
            } else {
                Err(AuthError::Anonymous)
            };
        };
        if self.users.is_empty() && !self.passwords.is_on() && self.allow_anonymous {
            return Ok(Identity::default());
        }
        if self.knows(&user, &password).await? {
            Ok(named(user))
        } else {
            Err(AuthError::BadCredentials)
        }
    }

    /// Both ways are gone for every user, so that the time tells nothing.
    async fn knows(&self, user: &str, password: &[u8]) -> Result<bool, AuthError> {
        let expected = self.users.get(user);
        let equal = equal_in_constant_time(expected.map_or("\0", String::as_str).as_bytes(), password);
        let hashed = self.passwords.verify(user, password).await;
        match hashed {
            Ok(proven) => Ok(proven || equal && expected.is_some()),
            Err(Busy) => Err(AuthError::Busy),
        }
    }
}

fn named(user: String) -> Identity {
    Identity {
        user: Some(user),
        expires: None,
    }
}

/// The password, where it has the shape of a signed token.
fn as_token(password: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(password).ok()?;
    (text.starts_with("eyJ") && text.split('.').count() == 3).then_some(text)
}

/// Seconds since the Unix epoch on the clock that does not jump; at most a year ahead.
fn moment(unix_s: u64) -> Instant {
    let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let left_s = unix_s.saturating_sub(now_s).min(365 * 24 * 3600);
    Instant::now() + Duration::from_secs(left_s)
}

fn equal_in_constant_time(expected: &[u8], given: &[u8]) -> bool {
    let differing = expected
        .iter()
        .zip(given.iter().chain(std::iter::repeat(&0)))
        .fold(0, |differing, (expected, given)| differing | (expected ^ given));
    std::hint::black_box(differing) == 0 && expected.len() == given.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UserConfig;

    fn authenticator(allow_anonymous: bool) -> Authenticator {
        let users = vec![UserConfig {
            name: "press".into(),
            password: "geheim".into(),
        }];
        Authenticator::new(&AuthConfig {
            allow_anonymous,
            users,
            ..AuthConfig::default()
        })
    }

    async fn ask(
        auth: &Authenticator,
        user: Option<&str>,
        password: Option<&'static str>,
    ) -> Result<Identity, AuthError> {
        auth.authenticate(Credentials {
            certificate: None,
            user: user.map(str::to_owned),
            password: password.map(|password| Bytes::from_static(password.as_bytes())),
        })
        .await
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_lets_in() {
        let auth = authenticator(false);
        assert_eq!(
            ask(&auth, Some("press"), Some("geheim")).await,
            Ok(named("press".into()))
        );
        for (user, password) in [
            ("press", Some("geheim ")),
            ("press", Some("gehei")),
            ("press", Some("")),
            ("press", None),
            ("nobody", Some("\0")),
            ("nobody", None),
        ] {
            let refused = ask(&auth, Some(user), password).await;
            assert_eq!(refused, Err(AuthError::BadCredentials), "{user} {password:?}");
        }
    }

    #[tokio::test]
    async fn anonymous_clients_enter_only_where_the_config_says_so() {
        let (open, closed) = (authenticator(true), authenticator(false));
        assert_eq!(ask(&open, None, None).await, Ok(Identity::default()));
        assert_eq!(ask(&closed, None, None).await, Err(AuthError::Anonymous));
        let stranger = ask(&open, Some("nobody"), None).await;
        assert_eq!(
            stranger,
            Err(AuthError::BadCredentials),
            "a wrong name is no anonymous client"
        );
    }

    #[tokio::test]
    async fn what_looks_like_a_token_is_a_password_where_no_tokens_are_taken() {
        let auth = authenticator(false);
        let refused = ask(&auth, Some("press"), Some("eyJhbGciOiJub25lIn0.e30.")).await;
        assert_eq!(refused, Err(AuthError::BadCredentials));
    }
}
