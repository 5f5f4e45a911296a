//! `shopfloor gateway`: its configuration in a test.

use std::net::SocketAddr;
use std::path::Path;

use shopfloor::parts::Backend;

use crate::server::Server;

/// One gateway alone: its own MQTT listener, and sinks that reach nobody, so that the spool keeps every record.
pub fn spawn_alone(dir: &Path, at: Backend, mqtt: &str) -> Server {
    let config = format!(
        r#"
[gateway]
data_dir = "{data}"

[[mqtt.listeners]]
listen = "{listen}"

[mqtt.auth]
allow_anonymous = true

{mqtt}

[bridge]
drain_timeout_ms = 0

[bridge.kafka]
bootstrap_servers = "127.0.0.1:1"

[admin]
listen = "{admin}"
"#,
        data = dir.join("data").display(),
        listen = at.address,
        admin = at.admin(),
    );
    Server::spawn("gateway", dir, &config, at.admin())
}

/// One gateway behind HAProxy.
#[derive(Debug, Clone, Copy)]
pub struct Gateway<'a> {
    /// For the configuration, the log and the spool.
    pub dir: &'a Path,
    pub id: &'a str,
    pub at: Backend,
    pub bootstrap: &'a str,
    /// HAProxy's frontend for gateways.
    pub api: SocketAddr,
    pub token: &'a str,
    /// Further variables of its environment; `SHOPFLOOR_` ones are settings.
    pub env: &'a [(String, String)],
}

impl Gateway<'_> {
    pub fn spawn(self) -> Server {
        Server::spawn_with_env("gateway", self.dir, &self.config(), self.at.admin(), self.env)
    }

    fn config(self) -> String {
        let Self {
            dir,
            id,
            at,
            bootstrap,
            api,
            token,
            ..
        } = self;
        format!(
            r#"
[gateway]
id = "{id}"
data_dir = "{data}"

[mqtt.auth]
allow_anonymous = true

[[mqtt.listeners]]
listen = "{listen}"
proxy_protocol = "required"

[bridge.kafka]
bootstrap_servers = "{bootstrap}"

[bridge.api]
url = "http://{api}"
token = "{token}"

[admin]
listen = "{admin}"
"#,
            data = dir.join("data").display(),
            listen = at.address,
            admin = at.admin(),
        )
    }
}
