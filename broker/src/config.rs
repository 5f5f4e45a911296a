//! What the front can be told, with safe defaults.

mod acl;
mod auth;
mod session;

use serde::Deserialize;
use shopfloor_runtime::Problem;
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_runtime::check_ranges;

pub(crate) use acl::read_rules;
pub use acl::{Access, AclConfig, RefusedPublish, RefusedSubscribe, RuleConfig};
pub use auth::{AuthConfig, CertificateName, UserConfig};
pub use session::SessionConfig;

/// The MQTT front.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Where devices connect; 3.1.1 and 5 on each.
    pub listeners: Vec<ListenerConfig>,
    /// Time from the connection to a complete CONNECT.
    pub connect_timeout_ms: u64,
    /// Time for one packet, from its first byte to its last.
    pub packet_timeout_ms: u64,
    /// Time without progress after which a client that does not read is closed.
    pub write_timeout_ms: u64,
    /// Time for receipts and last acknowledgements when the front stops.
    pub drain_timeout_ms: u64,
    /// Largest packet taken, fixed header included.
    pub max_packet_bytes: usize,
    /// Longest topic name or filter.
    pub max_topic_bytes: usize,
    /// Most levels of a topic name or filter.
    pub max_topic_levels: usize,
    /// Payload and topic bytes of one connection that wait for their receipts, before its socket is left unread.
    pub max_unacknowledged_bytes: usize,
    /// Packets that one client may send in a second; over it its socket is left unread for a while. 0 is no limit.
    pub max_packets_per_s: u32,
    /// The same for bytes.
    pub max_bytes_per_s: u32,
    /// QoS 1 and 2 publishes that an MQTT 5 client may have unacknowledged.
    pub receive_maximum: u16,
    /// Topic aliases that an MQTT 5 client may set, and that are set towards one.
    pub topic_alias_maximum: u16,
    /// An MQTT 5 client that asks for a longer keep-alive is told this one, so that a dead device is noticed soon;
    /// 0 leaves every client its own. A client that asks for none has none either way.
    pub max_keep_alive_s: u16,
    /// Between two updates of the `$SYS` topics; 0 turns them off.
    pub sys_interval_s: u16,
    pub session: SessionConfig,
    pub retained: RetainedConfig,
    pub persistence: PersistenceConfig,
    pub fanout: FanoutConfig,
    pub auth: AuthConfig,
    pub acl: AclConfig,
}

/// Retained messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetainedConfig {
    pub max_messages: usize,
    pub max_bytes: usize,
}

/// What survives a restart.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersistenceConfig {
    /// Without it sessions end with the process, and with them open QoS 2 exchanges.
    pub enabled: bool,
    /// Memory for pages of the database.
    pub cache_bytes: usize,
}

/// The router behind QoS 0 deliveries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FanoutConfig {
    /// Distinct topic filters carried by the router; later ones are served without it. 0 turns it off.
    pub max_filters: usize,
    /// Memory of the router's log for one filter; what a slow reader has not read of it in time is dropped.
    pub log_bytes_per_filter: usize,
    /// Messages on their way to the router; further ones are dropped.
    pub max_queued_messages: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerConfig::new(([127, 0, 0, 1], 1883).into())],
            connect_timeout_ms: 10_000,
            packet_timeout_ms: 60_000,
            write_timeout_ms: 30_000,
            drain_timeout_ms: 10_000,
            max_packet_bytes: 1024 * 1024,
            max_topic_bytes: 1024,
            max_topic_levels: 32,
            max_unacknowledged_bytes: 1024 * 1024,
            max_packets_per_s: 100_000,
            max_bytes_per_s: 64 * 1024 * 1024,
            receive_maximum: 1024,
            topic_alias_maximum: 32,
            max_keep_alive_s: 60,
            sys_interval_s: 10,
            session: SessionConfig::default(),
            retained: RetainedConfig::default(),
            persistence: PersistenceConfig::default(),
            fanout: FanoutConfig::default(),
            auth: AuthConfig::default(),
            acl: AclConfig::default(),
        }
    }
}

impl Default for RetainedConfig {
    fn default() -> Self {
        Self {
            max_messages: 100_000,
            max_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Default for PersistenceConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            cache_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self {
            max_filters: 64,
            log_bytes_per_filter: 1024 * 1024,
            max_queued_messages: 20_000,
        }
    }
}

impl BrokerConfig {
    /// Appends every semantic problem; `at` is the path of this struct.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if self.listeners.is_empty() {
            out.push(Problem::new(
                format!("{at}.listeners"),
                "no listener: no device can connect",
                "give one, such as [{ listen = \"0.0.0.0:1883\" }]",
            ));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            listener.problems_with_websocket(&format!("{at}.listeners[{index}]"), out);
        }
        check_ranges!(self, at, out, {
            connect_timeout_ms: 100..=120_000,
            packet_timeout_ms: 100..=3_600_000,
            write_timeout_ms: 100..=600_000,
            drain_timeout_ms: 0..=600_000,
            max_packet_bytes: 1024..=268_435_460,
            max_topic_bytes: 16..=65_535,
            max_topic_levels: 1..=200,
            max_unacknowledged_bytes: 64 * 1024..=1024 * 1024 * 1024,
            receive_maximum: 1..=u16::MAX,
        });
        self.session.problems(&format!("{at}.session"), out);
        self.retained.problems(&format!("{at}.retained"), out);
        self.persistence.problems(&format!("{at}.persistence"), out);
        self.fanout.problems(&format!("{at}.fanout"), out);
        let certificates = self
            .listeners
            .iter()
            .any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
        self.auth.problems(certificates, &format!("{at}.auth"), out);
        self.acl.problems(&format!("{at}.acl"), out);
    }
}

impl RetainedConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            max_messages: 0..=10_000_000,
            max_bytes: 0..=16 * 1024 * 1024 * 1024,
        });
    }
}

impl PersistenceConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            cache_bytes: 1024 * 1024..=16 * 1024 * 1024 * 1024,
        });
    }
}

impl FanoutConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            max_filters: 0..=10_000,
            log_bytes_per_filter: 16 * 1024..=1024 * 1024 * 1024,
            max_queued_messages: 1..=10_000_000,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lets_nobody_in_and_says_so() {
        let mut problems = Vec::new();
        BrokerConfig::default().problems("mqtt", &mut problems);
        assert_eq!(
            problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(),
            ["mqtt.auth.users"]
        );
    }

    #[test]
    fn every_problem_is_reported_at_its_place() {
        let user = UserConfig {
            name: "press".into(),
            password: String::new(),
        };
        let config = BrokerConfig {
            listeners: Vec::new(),
            max_packet_bytes: 1,
            session: SessionConfig {
                max_inflight: 0,
                ..SessionConfig::default()
            },
            auth: AuthConfig {
                users: vec![user.clone(), user],
                ..AuthConfig::default()
            },
            ..BrokerConfig::default()
        };
        let mut problems = Vec::new();
        config.problems("mqtt", &mut problems);
        let paths = problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>();
        assert_eq!(
            paths,
            [
                "mqtt.listeners",
                "mqtt.max_packet_bytes",
                "mqtt.session.max_inflight",
                "mqtt.auth.users[0]",
                "mqtt.auth.users[1]",
                "mqtt.auth.users[1].name",
            ]
        );
    }

    #[test]
    fn a_password_is_never_printed() {
        let user = UserConfig {
            name: "press".into(),
            password: "geheim".into(),
        };
        assert!(!format!("{user:?}").contains("geheim"));
    }
}
