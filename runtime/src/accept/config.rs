//! One listening address and its limits.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::check_ranges;
use crate::problem::Problem;
use crate::proxy::ProxyProtocol;
use crate::tls::TlsConfig;

/// One listening address and its limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    pub listen: SocketAddr,
    #[serde(default)]
    pub transport: Transport,
    /// `"required"` behind a load balancer that sends PROXY v1 or v2, else `"rejected"`.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Open connections at most; further ones wait in the kernel's backlog.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// Of them from one address (one /64 network in IPv6); further ones are closed.
    #[serde(default = "default_max_connections_per_address")]
    pub max_connections_per_address: usize,
    /// New connections in a second; further ones are closed before anything is read or computed for them. 0 is no limit.
    #[serde(default = "default_max_connects_per_s")]
    pub max_connects_per_s: u32,
    /// Time for the PROXY header.
    #[serde(default = "default_header_timeout_ms")]
    pub header_timeout_ms: u64,
    /// Time for the TLS handshake and, after it, for the WebSocket upgrade.
    #[serde(default = "default_handshake_timeout_ms")]
    pub handshake_timeout_ms: u64,
    /// Certificate and trust, for `tls` and `wss`.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// What lies between TCP and the server's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    #[default]
    Tcp,
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

fn default_max_connections() -> usize {
    20_000
}

fn default_max_connections_per_address() -> usize {
    10_000
}

fn default_max_connects_per_s() -> u32 {
    5_000
}

fn default_header_timeout_ms() -> u64 {
    5_000
}

fn default_handshake_timeout_ms() -> u64 {
    10_000
}

impl ListenerConfig {
    /// A plain listener with the default limits and no PROXY header.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            transport: Transport::default(),
            proxy_protocol: ProxyProtocol::default(),
            max_connections: default_max_connections(),
            max_connections_per_address: default_max_connections_per_address(),
            max_connects_per_s: default_max_connects_per_s(),
            header_timeout_ms: default_header_timeout_ms(),
            handshake_timeout_ms: default_handshake_timeout_ms(),
            tls: None,
        }
    }

    /// Every problem of a listener whose protocol knows no WebSocket.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if self.transport.is_websocket() {
            out.push(Problem::new(
                format!("{at}.transport"),
                "WebSocket is for MQTT listeners",
                "use \"tcp\" or \"tls\"",
            ));
        }
        self.problems_with_websocket(at, out);
    }

    /// Every problem of a listener that may speak WebSocket. The certificate's files are read.
    pub fn problems_with_websocket(&self, at: &str, out: &mut Vec<Problem>) {
        match (&self.tls, self.transport.is_tls()) {
            (Some(tls), true) => tls.problems(&format!("{at}.tls"), out),
            (None, false) => {}
            (None, true) => out.push(Problem::new(
                format!("{at}.tls"),
                "is missing: the transport needs a certificate",
                "give certificate and key, or use transport \"tcp\" or \"ws\"",
            )),
            (Some(_), false) => out.push(Problem::new(
                format!("{at}.transport"),
                "is not encrypted although a certificate is given",
                "use \"tls\" or \"wss\", or remove tls",
            )),
        }
        check_ranges!(self, at, out, {
            max_connections: 1..=1_000_000,
            max_connections_per_address: 1..=1_000_000,
            max_connects_per_s: 0..=1_000_000,
            header_timeout_ms: 100..=60_000,
            handshake_timeout_ms: 100..=60_000,
        });
    }
}
