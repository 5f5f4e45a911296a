//! One connection for all that is published.
//!
//! rumqttc tells neither which publish got which packet id nor what became of it when the connection broke. It writes
//! publishes in the order in which it was given them, so the ids are told apart by that order. With a connection
//! everything under way in it is forgotten: the one who asked is told, and nothing is sent twice behind their back.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, PubAckReason};
use rumqttc::v5::{AsyncClient, ConnectionError, Event};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::Fault;
use super::client::{self, Backoff};
use super::config::MqttConfig;
use crate::metrics;

/// Room for a PUBLISH's header: type, length, topic length, packet id, properties.
const HEADER_BYTES: usize = 16;

type Outcome = oneshot::Sender<Result<(), Fault>>;

#[derive(Debug)]
struct Job {
    topic: String,
    payload: Bytes,
    outcome: Outcome,
}

/// The requests' side.
#[derive(Debug)]
pub(super) struct Publisher {
    config: Arc<MqttConfig>,
    /// To the connection, which the first publish starts.
    jobs: OnceLock<mpsc::Sender<Job>>,
    places: Semaphore,
    tasks: TaskTracker,
}

impl Publisher {
    pub(super) fn new(config: &Arc<MqttConfig>, tasks: &TaskTracker) -> Self {
        Self {
            config: Arc::clone(config),
            jobs: OnceLock::new(),
            places: Semaphore::new(config.max_publishes_in_flight.into()),
            tasks: tasks.clone(),
        }
    }

    fn jobs(&self) -> &mpsc::Sender<Job> {
        self.jobs.get_or_init(|| {
            let (jobs, queue) = mpsc::channel(self.config.max_publishes_in_flight.into());
            self.tasks.spawn(run(Arc::clone(&self.config), queue));
            jobs
        })
    }

    pub(super) async fn publish(&self, topic: String, payload: Bytes) -> Result<(), Fault> {
        let _place = self.places.try_acquire().map_err(|_| Fault::Busy)?;
        let (outcome, answer) = oneshot::channel();
        let job = Job {
            topic,
            payload,
            outcome,
        };
        self.jobs().try_send(job).map_err(|_| Fault::Busy)?;
        let within = Duration::from_millis(self.config.publish_timeout_ms);
        match tokio::time::timeout(within, answer).await {
            Ok(answered) => answered.unwrap_or(Err(Fault::Lost)),
            Err(_) => Err(Fault::TimedOut),
        }
    }
}

/// How a connection ended.
enum End {
    /// Nobody can publish any more.
    Unused,
    Broken(Box<ConnectionError>),
}

/// Connects, and connects again, to one broker after the other, until nobody can publish any more.
async fn run(config: Arc<MqttConfig>, mut queue: mpsc::Receiver<Job>) {
    let mut backoff = Backoff::new(&config);
    let mut is_away = false;
    for address in config.addresses.iter().cycle() {
        let mut connection = Connection::new(is_away);
        let end = connection.run(&config, address, &mut queue).await;
        metrics::mqtt_connected(false);
        let End::Broken(error) = end else { return };
        if connection.is_connected {
            backoff.reset();
        }
        // Said once an outage.
        if connection.is_connected || !is_away {
            tracing::warn!(address, error = %error, "no connection to the MQTT broker, trying on");
        }
        is_away = true;
        drop(connection);
        let mut pause = pin!(tokio::time::sleep(backoff.next()));
        loop {
            tokio::select! {
                () = &mut pause => break,
                job = queue.recv() => match job {
                    Some(job) => answer(job.outcome, Err(Fault::Away)),
                    None => return,
                },
            }
        }
    }
}

fn answer(outcome: Outcome, result: Result<(), Fault>) {
    // Whoever has stopped waiting was told so.
    let _gone = outcome.send(result);
}

/// What is under way in one connection.
struct Connection {
    is_connected: bool,
    /// The connection before this one failed: whoever asks is told at once.
    is_away: bool,
    /// Given to rumqttc, not written yet.
    unwritten: VecDeque<Outcome>,
    /// Written, by packet id.
    written: HashMap<u16, Outcome>,
    /// What the broker takes, where it says so.
    max_packet_bytes: usize,
}

impl Connection {
    fn new(is_away: bool) -> Self {
        Self {
            is_connected: false,
            is_away,
            unwritten: VecDeque::new(),
            written: HashMap::new(),
            max_packet_bytes: usize::MAX,
        }
    }

    async fn run(&mut self, config: &MqttConfig, address: &str, queue: &mut mpsc::Receiver<Job>) -> End {
        let max = config.max_publishes_in_flight;
        let (client, mut eventloop) =
            AsyncClient::new(client::options(config, address, max), usize::from(max));
        loop {
            // Polled to its end: a cancelled poll may lose a packet that is half written.
            let mut poll = pin!(eventloop.poll());
            let event = loop {
                // Before the first connection jobs wait for it; in an outage they are told.
                let takes = self.is_away || self.is_connected;
                let has_room = self.unwritten.len() + self.written.len() < usize::from(max);
                tokio::select! {
                    event = &mut poll => break event,
                    job = queue.recv(), if takes && has_room => match job {
                        Some(job) => self.hand_over(job, &client),
                        None => return End::Unused,
                    },
                }
            };
            match event {
                Ok(event) => self.see(event, address),
                Err(error) => return End::Broken(Box::new(error)),
            }
        }
    }

    fn hand_over(&mut self, job: Job, client: &AsyncClient) {
        if job.outcome.is_closed() {
            return;
        }
        if !self.is_connected {
            return answer(job.outcome, Err(Fault::Away));
        }
        if job.topic.len() + job.payload.len() + HEADER_BYTES > self.max_packet_bytes {
            let text = format!("it is larger than {} bytes", self.max_packet_bytes);
            return answer(job.outcome, Err(Fault::Message(text)));
        }
        match client.try_publish(job.topic, QoS::AtLeastOnce, false, job.payload) {
            Ok(()) => self.unwritten.push_back(job.outcome),
            Err(error) => {
                tracing::debug!(%error, "the MQTT client takes no publish");
                answer(job.outcome, Err(Fault::Busy));
            }
        }
    }

    fn see(&mut self, event: Event, address: &str) {
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                let max = ack
                    .properties
                    .and_then(|properties| properties.max_packet_size)
                    .and_then(|max| usize::try_from(max).ok());
                self.max_packet_bytes = max.unwrap_or(usize::MAX);
                self.is_connected = true;
                self.is_away = false;
                metrics::mqtt_connected(true);
                tracing::info!(address, "connected to the MQTT broker");
            }
            Event::Outgoing(Outgoing::Publish(packet_id)) => {
                if let Some(outcome) = self.unwritten.pop_front() {
                    self.written.insert(packet_id, outcome);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(outcome) = self.written.remove(&ack.pkid) {
                    answer(outcome, verdict(ack));
                }
            }
            _ => {}
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for outcome in self
            .unwritten
            .drain(..)
            .chain(self.written.drain().map(|(_, outcome)| outcome))
        {
            answer(outcome, Err(Fault::Lost));
        }
    }
}

fn verdict(ack: PubAck) -> Result<(), Fault> {
    let fault: fn(String) -> Fault = match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return Ok(()),
        PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => Fault::Message,
        _ => Fault::Refused,
    };
    let said = ack.properties.and_then(|properties| properties.reason_string);
    Err(fault(said.unwrap_or_else(|| {
        match ack.reason {
            PubAckReason::TopicNameInvalid => "it does not take this topic",
            PubAckReason::PayloadFormatInvalid => "the payload breaks the contract of its topic",
            PubAckReason::NotAuthorized => "it does not allow this topic",
            PubAckReason::QuotaExceeded => "a quota is exceeded",
            _ => "without a reason",
        }
        .to_owned()
    })))
}
