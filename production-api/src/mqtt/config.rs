//! Where the brokers are, and the limits towards them and towards clients.

use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::check_ranges;
use shopfloor_runtime::problem::{Problem, check_range};

/// The MQTT service's configuration.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Brokers, host:port; none turns the service off. A message is published to the first one that answers. All are
    /// subscribed to, for gateways share nothing.
    pub addresses: Vec<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Time for a broker's acknowledgement.
    pub publish_timeout_ms: u64,
    /// Publishes that wait for it; further ones are answered with 503.
    pub max_publishes_in_flight: u16,
    /// Longest pause between two tries to connect.
    pub max_backoff_ms: u64,
    /// Open `/mqtt/subscribe` streams; further ones are answered with 503.
    pub max_streams: usize,
    /// Messages that one stream's client has not read; over it the stream ends with the event `overflow`. Also the
    /// largest packet that is taken from a broker.
    pub stream_buffer_bytes: u32,
    /// A quiet stream carries a comment this often, so that proxies keep it.
    pub heartbeat_ms: u64,
}

/// Without secrets.
impl fmt::Debug for MqttConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttConfig")
            .field("addresses", &self.addresses)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "not shown"))
            .field("publish_timeout_ms", &self.publish_timeout_ms)
            .field("max_publishes_in_flight", &self.max_publishes_in_flight)
            .field("max_backoff_ms", &self.max_backoff_ms)
            .field("max_streams", &self.max_streams)
            .field("stream_buffer_bytes", &self.stream_buffer_bytes)
            .field("heartbeat_ms", &self.heartbeat_ms)
            .finish()
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            user: None,
            password: None,
            publish_timeout_ms: 5_000,
            max_publishes_in_flight: 256,
            max_backoff_ms: 5_000,
            max_streams: 64,
            stream_buffer_bytes: 1024 * 1024,
            heartbeat_ms: 10_000,
        }
    }
}

/// Host and port of `host:port`.
pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
    is_host.then_some((host, port))
}

impl MqttConfig {
    pub(crate) fn problems(&self, at: &str, request_timeout_ms: u64, out: &mut Vec<Problem>) {
        for (index, address) in self.addresses.iter().enumerate() {
            if host_and_port(address).is_none() {
                out.push(Problem::new(
                    format!("{at}.addresses[{index}]"),
                    format!("{address:?} is no address of a broker"),
                    "write host:port, for example gateway-1:1883",
                ));
            }
        }
        check_range(out, format!("{at}.addresses"), self.addresses.len(), 0..=32);
        if self.user.is_none() && self.password.is_some() {
            out.push(Problem::new(
                format!("{at}.password"),
                "there is no user to it",
                format!("set {at}.user, or leave the password out"),
            ));
        }
        check_ranges!(self, at, out, {
            // Its own answer says more than that of the whole request's timeout.
            // Its own answer says more than that of the whole request's timeout.
            publish_timeout_ms: 1..=request_timeout_ms.saturating_sub(1),
            max_publishes_in_flight: 1..=30_000,
            max_backoff_ms: 100..=600_000,
            max_streams: 1..=100_000,
            stream_buffer_bytes: 1_024..=256 * 1024 * 1024,
            heartbeat_ms: 100..=3_600_000,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(host_and_port("gateway-1:1883"), Some(("gateway-1", 1883)));
        assert_eq!(host_and_port("[::1]:1883"), Some(("[::1]", 1883)));
        for wrong in [
            "",
            "gateway-1",
            ":1883",
            "gateway:0",
            "gateway:x",
            "mqtt://a:1883",
        ] {
            assert_eq!(host_and_port(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_debug_text_holds_no_password() {
        let config = MqttConfig {
            user: Some("press".into()),
            password: Some("hidden".into()),
            ..MqttConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(
            shown.contains("not shown") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
