//! Who may connect.

use std::path::PathBuf;

use serde::Deserialize;
use shopfloor_runtime::Problem;
use shopfloor_runtime::check_ranges;
use shopfloor_runtime::jwks::TokenConfig;

use crate::password_file;

/// Who may connect.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Clients without a user name are let in.
    pub allow_anonymous: bool,
    pub users: Vec<UserConfig>,
    /// Users and password hashes, as `shopfloor passwd` writes them; read again when it changes and on SIGHUP.
    pub password_file: Option<PathBuf>,
    /// Passwords that are hashed at a time: each takes a core and, as `shopfloor passwd` makes them, 19 MiB.
    pub max_password_checks: usize,
    /// Clients that wait for their turn; further ones are told that the server is busy.
    pub max_waiting_password_checks: usize,
    /// A proven password is not hashed again for this long; 0 hashes each time.
    pub password_cache_s: u64,
    /// Tokens of an identity provider in the password field.
    pub jwt: TokenConfig,
    /// What of a verified client certificate is the user.
    pub certificate_name: CertificateName,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            allow_anonymous: false,
            users: Vec::new(),
            password_file: None,
            max_password_checks: 2,
            max_waiting_password_checks: 1_000,
            password_cache_s: 300,
            jwt: TokenConfig::default(),
            certificate_name: CertificateName::default(),
        }
    }
}

/// The part of a certificate that names its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    /// Certificates say only who may connect; the user is whoever the password says.
    None,
    #[default]
    CommonName,
    /// The first DNS name of the subject's alternative names.
    DnsName,
    /// The first URI of them.
    Uri,
}

/// One user.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    pub name: String,
    pub password: String,
}

impl std::fmt::Debug for UserConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserConfig")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl AuthConfig {
    /// `certificates`: a listener asks its clients for one.
    pub(super) fn problems(&self, certificates: bool, at: &str, out: &mut Vec<Problem>) {
        let by_certificate = certificates && self.certificate_name != CertificateName::None;
        let somebody = self.allow_anonymous
            || !self.users.is_empty()
            || self.password_file.is_some()
            || self.jwt.is_on()
            || by_certificate;
        if !somebody {
            out.push(Problem::new(
                format!("{at}.users"),
                "no user, and anonymous clients are refused: no device can connect",
                "add users, a password_file, jwt or client certificates, or set allow_anonymous = true on a network \
                 that you trust",
            ));
        }
        if let Some(file) = &self.password_file
            && let Err(wrong) = password_file::read(file)
        {
            let remedy = "write it with `shopfloor passwd FILE USER`, readable for this process";
            out.extend(
                wrong
                    .into_iter()
                    .map(|why| Problem::new(format!("{at}.password_file"), why, remedy)),
            );
        }
        check_ranges!(self, at, out, {
            max_password_checks: 1..=64,
            max_waiting_password_checks: 0..=100_000,
            password_cache_s: 0..=86_400,
        });
        self.jwt.problems(&format!("{at}.jwt"), out);
        for (index, user) in self.users.iter().enumerate() {
            if user.name.is_empty() || user.password.is_empty() {
                out.push(Problem::new(
                    format!("{at}.users[{index}]"),
                    "the name or the password is empty",
                    "give both",
                ));
            }
            if self
                .users
                .iter()
                .take(index)
                .any(|earlier| earlier.name == user.name)
            {
                out.push(Problem::new(
                    format!("{at}.users[{index}].name"),
                    format!("{:?} is listed twice", user.name),
                    "keep one of the two",
                ));
            }
        }
    }
}
