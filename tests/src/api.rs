//! `shopfloor api`: its configuration in a test.

use std::path::Path;

use shopfloor::parts::Backend;

use crate::server::Server;

/// One API server behind HAProxy.
#[derive(Debug, Clone, Copy)]
pub struct Api<'a> {
    pub dir: &'a Path,
    pub at: Backend,
    pub database_url: &'a str,
    pub bootstrap: &'a str,
    /// What gateways must show; the same in [`crate::gateway::Gateway`].
    pub token: &'a str,
    /// Further variables of its environment; `SHOPFLOOR_` ones are settings.
    pub env: &'a [(String, String)],
}

impl Api<'_> {
    pub fn spawn(self) -> Server {
        Server::spawn_with_env("api", self.dir, &self.config(), self.at.admin(), self.env)
    }

    fn config(self) -> String {
        let Self {
            at,
            database_url,
            bootstrap,
            token,
            ..
        } = self;
        format!(
            r#"
[api]
internal_token = "{token}"

[api.listener]
listen = "{listen}"
proxy_protocol = "required"

[api.database]
url = "{database_url}"

[admin]
listen = "{admin}"

[bridge.kafka]
bootstrap_servers = "{bootstrap}"
"#,
            listen = at.address,
            admin = at.admin(),
        )
    }
}
