//! The one typed configuration: TOML and `SHOPFLOOR_*` variables, unknown keys refused.
//!
//! Layout: [`load`] reads and types; this file is the whole of what can be set. Each section is the configuration
//! struct of the crate that it is for.

#[cfg(test)]
mod example;
pub mod load;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shopfloor_api::ApiConfig;
use shopfloor_bridge::BridgeConfig;
use shopfloor_bridge::tap::{BESIDE_MESSAGE_BYTES, TOPIC_COPIES};
use shopfloor_broker::BrokerConfig;
use shopfloor_runtime::Problem;
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_runtime::telemetry::LogConfig;

use load::{Located, Source};

/// Everything that can be set. `shopfloor gateway` uses `gateway`, `mqtt` and `bridge`; `shopfloor api` uses `api`;
/// both use `admin` and `log`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub gateway: GatewayConfig,
    pub mqtt: BrokerConfig,
    pub bridge: BridgeConfig,
    pub api: ApiConfig,
    /// `/live`, `/ready` and `/metrics`.
    pub admin: ListenerConfig,
    pub log: LogConfig,
}

/// Who this gateway is and where it keeps what it has accepted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// The same over the gateway's whole life, and no other's: records carry it.
    pub id: String,
    /// On a local disk; one gateway a directory.
    pub data_dir: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gateway: GatewayConfig::default(),
            mqtt: BrokerConfig::default(),
            bridge: BridgeConfig::default(),
            api: ApiConfig::default(),
            admin: ListenerConfig::new(([127, 0, 0, 1], 9600).into()),
            log: LogConfig::default(),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            id: "gateway-1".into(),
            data_dir: "data".into(),
        }
    }
}

/// Which server the settings are for: the other's sections are read, but their problems are not in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Gateway,
    Api,
    /// Nobody: a command that looks at a gateway's data. What only its start needs is not in the way.
    Operator,
    /// The servers that the settings speak of; both where they speak of neither.
    Written,
}

impl Config {
    /// Reads `file` and `environment` for `role`.
    ///
    /// # Errors
    /// Every problem of syntax, type and meaning, each with its place.
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        role: Role,
    ) -> Result<Self, Vec<Located>> {
        let source = Source::read(file, environment)?;
        let config: Self = source.typed()?;
        let problems = config.problems(match role {
            Role::Written => source.role(),
            given => given,
        });
        if problems.is_empty() {
            return Ok(config);
        }
        let located = problems.into_iter().map(|problem| Located {
            place: source.place(&problem.path),
            text: problem.to_string(),
        });
        Err(located.collect())
    }

    /// Every problem of meaning for `role`.
    pub fn problems(&self, role: Role) -> Vec<Problem> {
        let mut out = Vec::new();
        let written = role == Role::Written;
        if written || matches!(role, Role::Gateway | Role::Operator) {
            self.gateway.problems("gateway", &mut out);
        }
        if written || role == Role::Gateway {
            self.mqtt.problems("mqtt", &mut out);
            self.check_packets_fit(&mut out);
        }
        if written || role == Role::Api {
            self.api.problems("api", &mut out);
        }
        // The API's outbox uses the same Kafka.
        self.bridge.problems("bridge", &mut out);
        self.admin.problems("admin", &mut out);
        if (written || role == Role::Api) && is_same(self.admin.listen, self.api.listener.listen) {
            out.push(Problem::new(
                "admin.listen",
                format!("{} is where api.listener.listen is already", self.admin.listen),
                "give one of the two another port",
            ));
        }
        self.log.problems("log", &mut out);
        out
    }

    /// The largest packet must fit one commit of the spool: else its device would send it for ever.
    fn check_packets_fit(&self, out: &mut Vec<Problem>) {
        let topics = TOPIC_COPIES.saturating_mul(self.mqtt.max_topic_bytes as u64);
        let least = (self.mqtt.max_packet_bytes as u64)
            .saturating_add(topics)
            .saturating_add(BESIDE_MESSAGE_BYTES);
        let commit_max_bytes = self.bridge.spool.commit_max_bytes;
        if commit_max_bytes < least {
            out.push(Problem::new(
                "bridge.spool.commit_max_bytes",
                format!("{commit_max_bytes} does not hold one packet of mqtt.max_packet_bytes"),
                format!("raise it to {least} or more, or lower mqtt.max_packet_bytes"),
            ));
        }
    }
}

/// Whether one process cannot listen on both.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 is any free one.
    one.port() == other.port() && one.port() != 0 && overlap
}

impl Source {
    /// The server that the settings speak of.
    fn role(&self) -> Role {
        let gateway = ["gateway", "mqtt", "bridge"]
            .iter()
            .any(|section| self.has(section));
        match (gateway, self.has("api")) {
            (true, false) => Role::Gateway,
            (false, true) => Role::Api,
            _ => Role::Written,
        }
    }
}

impl GatewayConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(plain) {
            out.push(Problem::new(
                format!("{at}.id"),
                format!("{:?} is no gateway id", self.id),
                "use 1 to 64 letters, digits, '-', '_' or '.'",
            ));
        }
        if self.data_dir.as_os_str().is_empty() {
            out.push(Problem::new(
                format!("{at}.data_dir"),
                "is empty",
                "name a directory on a local disk, for example /var/lib/shopfloor",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<Located>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shopfloor.toml");
        std::fs::write(&file, text).unwrap();
        Config::read(Some(&file), std::iter::empty(), Role::Written)
    }

    #[test]
    fn without_a_file_the_api_starts_and_a_gateway_asks_who_may_connect() {
        Config::read(None, std::iter::empty(), Role::Api).unwrap();
        let problems = Config::read(None, std::iter::empty(), Role::Gateway).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].text.starts_with("mqtt.auth"), "{problems:#?}");
    }

    #[test]
    fn a_packet_that_no_commit_of_the_spool_holds_is_a_problem() {
        let text = "[mqtt]\nmax_packet_bytes = 16777216\n[mqtt.auth]\nallow_anonymous = true\n";
        let problems = read(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        let text = &problems[0].text;
        assert!(
            text.starts_with("bridge.spool.commit_max_bytes") && text.contains("mqtt.max_packet_bytes"),
            "{text}"
        );
    }

    #[test]
    fn a_file_for_the_api_alone_needs_no_mqtt_users() {
        read("[api.listener]\nlisten = '127.0.0.1:1'\n").unwrap();
    }

    #[test]
    fn problems_of_meaning_are_all_shown_with_their_lines() {
        let text = "[gateway]\nid = 'no spaces please'\n[mqtt.auth]\nallow_anonymous = true\n[admin]\nlisten = '127.0.0.1:1'\nmax_connections = 0\n";
        let problems = read(text).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(problems[0].place.ends_with("shopfloor.toml:2:1"), "{problems:#?}");
        assert!(problems[1].place.ends_with("shopfloor.toml:7:1"), "{problems:#?}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let problems = read("[api]\nporrt = 1\n").unwrap_err();
        assert!(
            problems[0].text.contains("porrt") && problems[0].place.ends_with(":2:1"),
            "{problems:#?}"
        );
    }
}
