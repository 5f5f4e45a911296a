//! How this process connects to a broker.

use std::time::Duration;

use rumqttc::NetworkOptions;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::valid_filter;
use uuid::Uuid;

use super::config::{MqttConfig, host_and_port};

/// A broker that is silent for twice as long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT_S: u64 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Options for one connection to `address`: a session of its own, that ends with it.
pub(super) fn options(config: &MqttConfig, address: &str, max_in_flight: u16) -> MqttOptions {
    // Checked with the configuration.
    let (host, port) = host_and_port(address).unwrap_or((address, 1883));
    let id = format!("shopfloor-api-{}", Uuid::now_v7().simple());
    let mut options = MqttOptions::new(id, host, port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_max_packet_size(Some(config.stream_buffer_bytes))
        // Wider than what is used: packet ids then do not collide when acknowledgements come out of order.
        .set_outgoing_inflight_upper_limit(max_in_flight.saturating_mul(2))
        .set_network_options(network);
    if let Some(user) = &config.user {
        options.set_credentials(user, config.password.as_deref().unwrap_or_default());
    }
    options
}

/// Whether a broker could take `filter`. A shared subscription would take its messages away from others.
pub(crate) fn is_filter(filter: &str) -> bool {
    valid_filter(filter) && !filter.contains(char::is_control) && !filter.starts_with("$share/")
}

/// The pauses between tries to connect: doubling, up to the configured one.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(config: &MqttConfig) -> Self {
        Self {
            next: FIRST_BACKOFF,
            max: Duration::from_millis(config.max_backoff_ms),
        }
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST_BACKOFF;
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next.min(self.max);
        self.next = pause.saturating_mul(2);
        pause
    }
}
