//! Who a client is, and what it may do.
//!
//! - this file: who it is.
//! - [`certificate`]: the name in a client's certificate.
//! - [`acl`]: what it may publish and subscribe to.

pub(crate) mod acl;
mod certificate;

use std::collections::HashMap;

use bytes::Bytes;
use shopfloor_runtime::tls::ClientCertificate;

use crate::config::{AuthConfig, CertificateName};

/// Decides on a CONNECT.
#[derive(Debug)]
pub(crate) struct Authenticator {
    allow_anonymous: bool,
    certificate_name: CertificateName,
    passwords: HashMap<String, String>,
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
}

impl Authenticator {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let passwords = config
            .users
            .iter()
            .map(|user| (user.name.clone(), user.password.clone()))
            .collect();
        Self {
            allow_anonymous: config.allow_anonymous,
            certificate_name: config.certificate_name,
            passwords,
        }
    }

    /// The authenticated user, `None` for an anonymous client. A certificate says who its client is, whatever user
    /// name CONNECT has. A client that gives a user name is held to it unless no user is configured at all.
    pub(crate) fn authenticate(
        &self,
        certificate: Option<&ClientCertificate>,
        user: Option<String>,
        password: Option<&Bytes>,
    ) -> Result<Option<String>, AuthError> {
        if let Some(certificate) = certificate
            && self.certificate_name != CertificateName::None
        {
            return certificate::name(certificate, self.certificate_name)
                .map(Some)
                .ok_or(AuthError::NamelessCertificate);
        }
        let Some(user) = user else {
            return if self.allow_anonymous {
                Ok(None)
            } else {
                Err(AuthError::Anonymous)
            };
        };
        if self.passwords.is_empty() && self.allow_anonymous {
            return Ok(None);
        }
        // The same work for an unknown user, so that the time tells nothing.
        let expected = self.passwords.get(&user);
        let given = password.map(Bytes::as_ref).unwrap_or_default();
        let equal = equal_in_constant_time(expected.map_or("\0", String::as_str).as_bytes(), given);
        if equal && expected.is_some() {
            Ok(Some(user))
        } else {
            Err(AuthError::BadCredentials)
        }
    }
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

    #[test]
    fn only_the_right_password_of_a_known_user_lets_in() {
        let auth = authenticator(false);
        let ask = |user: &str, password: &'static str| {
            auth.authenticate(
                None,
                Some(user.into()),
                Some(&Bytes::from_static(password.as_bytes())),
            )
        };
        assert_eq!(ask("press", "geheim"), Ok(Some("press".into())));
        assert_eq!(ask("press", "geheim "), Err(AuthError::BadCredentials));
        assert_eq!(ask("press", "gehei"), Err(AuthError::BadCredentials));
        assert_eq!(ask("press", ""), Err(AuthError::BadCredentials));
        assert_eq!(ask("nobody", "\0"), Err(AuthError::BadCredentials));
        assert_eq!(
            auth.authenticate(None, Some("press".into()), None),
            Err(AuthError::BadCredentials)
        );
    }

    #[test]
    fn anonymous_clients_enter_only_where_the_config_says_so() {
        assert_eq!(authenticator(true).authenticate(None, None, None), Ok(None));
        assert_eq!(
            authenticator(false).authenticate(None, None, None),
            Err(AuthError::Anonymous)
        );
        assert_eq!(
            authenticator(true).authenticate(None, Some("nobody".into()), None),
            Err(AuthError::BadCredentials),
            "a wrong name is no anonymous client"
        );
    }
}
