//! Who may connect.

use serde::Deserialize;
use shopfloor_runtime::Problem;

/// Who may connect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Clients without a user name are let in.
    pub allow_anonymous: bool,
    pub users: Vec<UserConfig>,
    /// What of a verified client certificate is the user.
    pub certificate_name: CertificateName,
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
    pub(super) fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if !self.allow_anonymous && self.users.is_empty() {
            out.push(Problem::new(
                format!("{at}.users"),
                "no user, and anonymous clients are refused: no device can connect",
                "add users, or set allow_anonymous = true on a network that you trust",
            ));
        }
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
