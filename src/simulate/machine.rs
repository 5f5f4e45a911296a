//! One machine as an MQTT client: publishes what is due, resends after a break, settles each message once.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::time::{MissedTickBehavior, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ack_log::AckLog;
use super::args::Config;
use super::client::{self, Event, Link, Reason, Sender};
use super::ledger::{Ledger, Settled, Written};
use super::pace::{Next, RateLimit, Source};
use super::payload::Kind;
use super::payload::Message;
use super::plan::Line;
use super::stats::Stats;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a machine looks at its patience.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stopped machine waits for what is unacknowledged.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What one machine, or all together, could not finish.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) reconnects: u64,
    pub(super) gave_up: usize,
    pub(super) cause: Option<String>,
    pub(super) refused_cause: Option<String>,
}

impl Left {
    pub(super) fn add(&mut self, other: Self) {
        self.reconnects += other.reconnects;
        self.gave_up += other.gave_up;
        self.cause = self.cause.take().or(other.cause);
        self.refused_cause = self.refused_cause.take().or(other.refused_cause);
    }
}

pub(super) struct Machine {
    link: Link,
    desk: Desk,
}

/// Everything of a machine but its network, so that both can be worked on at once.
struct Desk {
    source: Source,
    exhausted: bool,
    ledger: Ledger,
    /// Most messages in the ledger.
    window: usize,
    sender: Sender,
    stats: Arc<Stats>,
    log: Option<AckLog>,
    connected: bool,
    /// That stood so far.
    connections: u64,
    /// Why the last connection ended.
    cause: Option<String>,
    refused_cause: Option<String>,
    patience: Duration,
    /// The last acknowledgement, or when a connection stood and none was due. A connection alone is none: a broker
    /// that only accepts would hold the machine for ever.
    last_progress: Instant,
    /// Set when the machine is told to stop.
    drain_ends: Option<Instant>,
}

/// How a connection ended.
enum Ended {
    /// Everything is published and settled.
    Finished,
    Broken {
        cause: String,
        is_final: bool,
    },
    GaveUp,
}

impl Machine {
    pub(super) fn new(
        config: &Config,
        line: Line,
        started: Instant,
        rate: Option<Arc<RateLimit>>,
        stats: Arc<Stats>,
        log: Option<AckLog>,
    ) -> Self {
        let (sender, link) = client::client(config, line.machine_id());
        let desk = Desk {
            source: Source::new(config, line, started, rate),
            exhausted: false,
            ledger: Ledger::default(),
            window: usize::from(config.inflight),
            sender,
            stats,
            log,
            connected: false,
            connections: 0,
            cause: None,
            refused_cause: None,
            patience: config.patience,
            last_progress: started,
            drain_ends: None,
        };
        Self { link, desk }
    }

    /// Until everything is settled, patience ends, or `stop` and the drain after it.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Left {
        let mut backoff = BACKOFF_MIN;
        loop {
            let connections = self.desk.connections;
            let ended = self.connection(&stop).await;
            // What had arrived before the break counts.
            for event in self.link.reset() {
                self.desk.handle(event).await;
            }
            self.desk.disconnected();
            match ended {
                Ended::Finished => return self.desk.left(),
                Ended::Broken { .. } if self.desk.is_finished() => return self.desk.left(),
                Ended::GaveUp => return self.desk.give_up(),
                Ended::Broken { cause, is_final } => {
                    self.desk.stats.trouble(Some(cause.clone()));
                    self.desk.cause = Some(cause);
                    if is_final || self.desk.is_out_of_patience() {
                        return self.desk.give_up();
                    }
                }
            }
            if self.desk.connections > connections {
                backoff = BACKOFF_MIN;
            }
            self.desk.wait(backoff, &stop).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connection(&mut self, stop: &CancellationToken) -> Ended {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = pin!(stop.cancelled());
        while !self.desk.is_finished() {
            let polled = {
                // Dropped half-way only where nothing is under way: see the client's notes.
                let mut poll = pin!(self.link.poll());
                loop {
                    let due = self.desk.feed(Instant::now());
                    if self.desk.is_finished() {
                        break Ok(Event::Other);
                    }
                    tokio::select! {
                        polled = &mut poll => break polled,
                        () = until(due) => {}
                        _ = checks.tick() => if self.desk.is_out_of_patience() { return Ended::GaveUp },
                        () = &mut stopped, if self.desk.drain_ends.is_none() => self.desk.stop(),
                    }
                }
            };
            match polled {
                Ok(Event::Connected { session_present }) => self.connected(session_present).await,
                Ok(event) => self.desk.handle(event).await,
                Err(error) => {
                    return Ended::Broken {
                        cause: error.to_string(),
                        is_final: error.is_final(),
                    };
                }
            }
        }
        self.close().await;
        Ended::Finished
    }

    async fn connected(&mut self, session_present: bool) {
        let desk = &mut self.desk;
        if session_present {
            self.link.resume(desk.ledger.resume());
        } else {
            for settled in desk.ledger.restart(Instant::now()) {
                desk.acknowledged(settled).await;
            }
        }
        for message in desk.ledger.queued() {
            desk.sender.publish(message);
        }
        desk.connected = true;
        desk.connections += 1;
        desk.stats.connected();
    }

    /// Says goodbye, which also flushes what QoS 0 has written.
    async fn close(&mut self) {
        if !self.desk.connected || !self.desk.sender.disconnect() {
            return;
        }
        let goodbye = async { while !matches!(self.link.poll().await, Ok(Event::Disconnected) | Err(_)) {} };
        let _ = timeout(CLOSE_MAX, goodbye).await;
    }
}

impl Desk {
    /// Hands the client what is due and fits the window. Returns when more will be due, where that is known.
    fn feed(&mut self, now: Instant) -> Option<Instant> {
        while self.connected && !self.exhausted && self.ledger.len() < self.window {
            match self.source.next(now) {
                Next::Due(message) => self.publish(message),
                Next::At(due) => return Some(due),
                Next::End => self.exhausted = true,
            }
        }
        None
    }

    fn publish(&mut self, message: Message) {
        let now = Instant::now();
        self.sender.publish(&message);
        self.ledger.hand(message, now);
    }

    async fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Written(packet_id) => {
                if let Written::First(kind) = self.ledger.written(packet_id) {
                    self.stats.published(kind);
                }
            }
            Event::Received(packet_id) => self.ledger.received(packet_id),
            Event::Acknowledged(packet_id) => {
                if let Some(settled) = self.ledger.settle(packet_id, now) {
                    self.acknowledged(settled).await;
                }
            }
            Event::Refused { packet_id, reason } => {
                if let Some(settled) = self.ledger.settle(packet_id, now) {
                    self.refused(settled, reason).await;
                }
            }
            Event::Connected { .. } | Event::Disconnected | Event::Other => {}
        }
    }

    async fn acknowledged(&mut self, settled: Settled) {
        self.last_progress = Instant::now();
        self.stats.acknowledged(&settled);
        if let Some(log) = &self.log
            && !log.acknowledged(&settled).await
        {
            // The run ends with the writer's error; publishing on would lose lines.
            self.stop();
            self.log = None;
        }
    }

    async fn refused(&mut self, settled: Settled, reason: Reason) {
        self.last_progress = Instant::now();
        match (reason, settled.message.kind) {
            (Reason::PayloadFormatInvalid, Kind::Invalid(_)) => self.acknowledged(settled).await,
            (reason, _) => {
                self.stats.refused();
                let cause = match reason {
                    Reason::PayloadFormatInvalid => "PayloadFormatInvalid of a valid message".to_owned(),
                    Reason::Other(cause) => cause,
                };
                self.refused_cause.get_or_insert(cause);
            }
        }
    }

    fn is_finished(&mut self) -> bool {
        self.ledger.is_empty() && (self.exhausted || self.source.is_exhausted(Instant::now()))
    }

    fn is_out_of_patience(&mut self) -> bool {
        let now = Instant::now();
        if self.connected && self.ledger.is_empty() {
            self.last_progress = now;
        }
        let drained = self.drain_ends.is_some_and(|ends| now >= ends);
        drained || now.duration_since(self.last_progress) >= self.patience
    }

    fn stop(&mut self) {
        self.source.finish();
        self.exhausted = true;
        self.drain_ends.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
    }

    fn disconnected(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.stats.disconnected();
        }
    }

    fn left(self) -> Left {
        let reconnects = self.connections.saturating_sub(1);
        Left {
            reconnects,
            gave_up: 0,
            cause: None,
            refused_cause: self.refused_cause,
        }
    }

    fn give_up(mut self) -> Left {
        let unsettled = self.ledger.len();
        let cause = self.cause.take();
        let cause = cause.unwrap_or_else(|| format!("{unsettled} messages were not acknowledged in time"));
        Left {
            gave_up: 1,
            cause: Some(cause),
            ..self.left()
        }
    }

    /// Waits before the next connection, with jitter so that a fleet does not come back at one moment.
    async fn wait(&mut self, backoff: Duration, stop: &CancellationToken) {
        let wait = backoff.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled(), if self.drain_ends.is_none() => self.stop(),
        }
    }
}

/// For ever where there is no time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
