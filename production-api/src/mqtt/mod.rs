//! The MQTT service: HTTP clients publish and follow topics without speaking MQTT.
//!
//! Layout, in the order in which a message passes:
//!
//! - `config`: brokers, limits.
//! - `client`: how this process connects to a broker; with the two below the only files that name rumqttc.
//! - `publisher`: one connection for all that is published; a publish is answered when the broker has acknowledged it.
//! - `subscription`: one connection a stream and broker; `buffer` is what a stream has not read yet.
//!
//! Promise: what was answered with success the broker has, and a stream that misses a message says so or ends.

mod buffer;
mod client;
mod config;
mod publisher;
mod subscription;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use buffer::Delivery;
pub(crate) use client::is_filter;
pub use config::MqttConfig;
pub(crate) use subscription::Subscription;

use crate::error::Error;
use crate::metrics;
use publisher::Publisher;

/// The running service.
#[derive(Debug)]
pub(crate) struct Mqtt {
    config: Arc<MqttConfig>,
    publisher: Publisher,
    streams: Arc<Semaphore>,
    /// Streams end with the server.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Why something was not published or followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("this server publishes and follows nothing: api.mqtt.addresses names no broker")]
    Off,
    #[error("too many MQTT publishes are under way, try again")]
    Busy,
    #[error("too many MQTT subscriptions are open, try again")]
    TooManyStreams,
    #[error("the MQTT broker cannot be reached, try again")]
    Away,
    #[error("the connection to the MQTT broker broke before it acknowledged: the message may have arrived")]
    Lost,
    #[error("the MQTT broker did not acknowledge in time: the message may have arrived")]
    TimedOut,
    /// The message itself, by the broker's rules.
    #[error("the MQTT broker refused the message: {0}")]
    Message(String),
    /// This process, by the broker's rules.
    #[error("the MQTT broker refused: {0}")]
    Refused(String),
}

impl Fault {
    /// The metric label.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Busy => "busy",
            Self::TooManyStreams => "too_many_streams",
            Self::Away => "away",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Message(_) => "message",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let text = fault.to_string();
        match fault {
            Fault::Off => Self::NotConfigured(text),
            Fault::TimedOut => Self::Unanswered(text),
            Fault::Message(_) => Self::Unprocessable(text),
            Fault::Refused(_) => Self::RefusedBehind(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl Mqtt {
    /// Its connections run on `tasks`: the one that publishes from the first publish until nobody can publish any more,
    /// those of streams until `stop`. `None` where no broker is named.
    pub(crate) fn new(config: &MqttConfig, stop: &CancellationToken, tasks: &TaskTracker) -> Option<Self> {
        if config.addresses.is_empty() {
            return None;
        }
        let config = Arc::new(config.clone());
        Some(Self {
            publisher: Publisher::new(&config, tasks),
            streams: Arc::new(Semaphore::new(config.max_streams)),
            config,
            stop: stop.clone(),
            tasks: tasks.clone(),
        })
    }

    pub(crate) fn config(&self) -> &MqttConfig {
        &self.config
    }

    /// Publishes with QoS 1; resolves when the broker has acknowledged.
    pub(crate) async fn publish(&self, topic: String, payload: String) -> Result<(), Fault> {
        let outcome = self.publisher.publish(topic, payload.into()).await;
        metrics::mqtt_published(outcome.as_ref().map_or_else(Fault::kind, |()| "acknowledged"));
        outcome
    }

    /// Follows a topic filter; resolves when at least one broker has acknowledged the subscription and no other is
    /// still to answer.
    pub(crate) async fn subscribe(&self, filter: &str) -> Result<Subscription, Fault> {
        let place = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Fault::TooManyStreams)?;
        Subscription::open(&self.config, filter, place, &self.stop, &self.tasks).await
    }
}
