//! One stream: a connection to each broker, and what they deliver.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, SubAck, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::Fault;
use super::buffer::{BufferIn, BufferOut, Delivery, Ended, buffer};
use super::client::{self, Backoff};
use super::config::MqttConfig;
use crate::metrics;

/// SUBSCRIBE is the only request.
const REQUESTS: usize = 2;

/// An open stream. It ends its connections when it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    out: BufferOut,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
    _stop: DropGuard,
}

/// One in the gauge of open streams.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::mqtt_streams(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::mqtt_streams(-1.0);
    }
}

impl Subscription {
    pub(super) async fn open(
        config: &Arc<MqttConfig>,
        filter: &str,
        place: OwnedSemaphorePermit,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, Fault> {
        let stop = stop.child_token();
        let guard = stop.clone().drop_guard();
        let (into, out) = buffer(config.stream_buffer_bytes);
        let firsts = config.addresses.iter().map(|address| {
            let (first, answer) = oneshot::channel();
            let follower = Follower {
                config: Arc::clone(config),
                address: address.clone(),
                filter: filter.to_owned(),
                into: into.clone(),
                first: Some(first),
                is_subscribed: false,
                is_interrupted: false,
            };
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled_owned(follower.follow()).await });
            answer
        });
        let within = Duration::from_millis(config.publish_timeout_ms);
        let firsts = join_all(firsts.map(|first| async move {
            let answered = tokio::time::timeout(within, first).await;
            answered.map_or(Err(Fault::Away), |first| first.unwrap_or(Err(Fault::Away)))
        }));
        let mut fault = Fault::Away;
        let mut is_open = false;
        for first in firsts.await {
            match first {
                Ok(()) => is_open = true,
                Err(Fault::Away) => {}
                Err(refused) => fault = refused,
            }
        }
        if !is_open {
            return Err(fault);
        }
        Ok(Self {
            out,
            _place: place,
            _counted: Counted::new(),
            _stop: guard,
        })
    }

    /// `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let next = self.out.next().await;
        if next == Some(Delivery::Overflow) {
            metrics::mqtt_overflowed();
        }
        next
    }
}

/// One broker's part of a stream.
struct Follower {
    config: Arc<MqttConfig>,
    address: String,
    filter: String,
    into: BufferIn,
    /// What became of the first try.
    first: Option<oneshot::Sender<Result<(), Fault>>>,
    /// This connection's subscription is acknowledged.
    is_subscribed: bool,
    /// The client was told of an interruption and of no end of it.
    is_interrupted: bool,
}

/// Why a connection ended.
enum End {
    Stream,
    Refused(&'static str),
    Broken(Box<ConnectionError>),
}

impl From<Ended> for End {
    fn from(_: Ended) -> Self {
        Self::Stream
    }
}

impl Follower {
    async fn follow(mut self) {
        let mut backoff = Backoff::new(&self.config);
        loop {
            match self.connection().await {
                End::Stream => return,
                End::Refused(text) => {
                    tracing::warn!(
                        address = self.address,
                        text,
                        "the MQTT broker refuses a subscription"
                    );
                    self.answer(Err(Fault::Refused(text.to_owned())));
                    return;
                }
                End::Broken(error) => {
                    tracing::debug!(address = self.address, %error, "a subscription's connection broke");
                }
            }
            self.answer(Err(Fault::Away));
            if self.is_subscribed {
                backoff.reset();
            }
            if !self.is_interrupted && self.into.push(Delivery::Interrupted).is_err() {
                return;
            }
            self.is_interrupted = true;
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn answer(&mut self, outcome: Result<(), Fault>) {
        if let Some(first) = self.first.take() {
            let _gone = first.send(outcome);
        }
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self) -> End {
        self.is_subscribed = false;
        let options = client::options(&self.config, &self.address, 1);
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
        loop {
            let seen = match eventloop.poll().await {
                Ok(event) => self.see(event, &client),
                Err(error) => return End::Broken(Box::new(error)),
            };
            if let Err(end) = seen {
                return end;
            }
        }
    }

    fn see(&mut self, event: Event, client: &AsyncClient) -> Result<(), End> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                // Its queue is empty, and has room for it.
                let _asked = client.try_subscribe(self.filter.as_str(), QoS::AtLeastOnce);
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                if let Some(text) = refusal(&ack) {
                    return Err(End::Refused(text));
                }
                self.is_subscribed = true;
                self.answer(Ok(()));
                if std::mem::take(&mut self.is_interrupted) {
                    self.into.push(Delivery::Resumed)?;
                }
            }
            Event::Incoming(Packet::Publish(publish)) => self.into.push(Delivery::Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload,
            })?,
            _ => {}
        }
        Ok(())
    }
}

fn refusal(ack: &SubAck) -> Option<&'static str> {
    match ack.return_codes.first()? {
        SubscribeReasonCode::Success(_) => None,
        SubscribeReasonCode::NotAuthorized => Some("it does not allow this topic"),
        SubscribeReasonCode::TopicFilterInvalid => Some("it does not take this topic"),
        SubscribeReasonCode::QuotaExceeded => Some("a quota is exceeded"),
        _ => Some("without a reason"),
    }
}
