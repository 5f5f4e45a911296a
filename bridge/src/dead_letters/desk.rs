//! Where an operator finds the dead letters: in the topic and on disk, each read as a stream.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::header;
use super::letter::{DeadLetter, Place};
use super::settled::{Begun, Settled, Settlement, TooMany};
use crate::config::BridgeConfig;
use crate::contract::timestamp::parse_production_time;
use crate::kafka::{Cluster, KafkaFault};
use crate::spool::inspect::{InspectError, Inspection, Step};

/// Letters that wait for whoever looks at them.
const AHEAD: usize = 16;
/// A copy of a record that came again after a crash is known as long as no more than these came in between.
const REMEMBERED: usize = 200_000;

/// Why dead letters cannot be looked at or settled.
#[derive(Debug, thiserror::Error)]
pub enum LettersFault {
    #[error(
        "bridge.kafka.bootstrap_servers is \"embedded\": that Kafka is inside the gateway's process, and its dead letters are \
             gone with it; name a real Kafka, or look at --source disk"
    )]
    Embedded,
    #[error("the routes have {problems} problems, first {first}; `shopfloor check` lists all")]
    Routes { problems: usize, first: String },
    #[error("the production API: {0}")]
    ApiConfig(String),
    #[error(
        "the production API does not take records ({0}); what was replayed before is marked: run the command again"
    )]
    Api(String),
    #[error(
        "{0}; is Kafka up, and is bridge.kafka.bootstrap_servers right? (`dlq list` and `drop` with --source disk do \
         without it)"
    )]
    Kafka(String),
    #[error("Kafka does not take the records ({0}); run the command again: it finds out what is there")]
    Unsettled(String),
    #[error(transparent)]
    Disk(#[from] InspectError),
    #[error("{}: {source}", .path.display())]
    Marks { path: PathBuf, source: io::Error },
    #[error("another `shopfloor dlq` command settles letters of {}; wait for it", .0.display())]
    Locked(PathBuf),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

impl From<KafkaFault> for LettersFault {
    fn from(fault: KafkaFault) -> Self {
        let source = std::error::Error::source(&fault).map(ToString::to_string);
        Self::Kafka(format!("{fault}: {}", source.unwrap_or_default()))
    }
}

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    All,
    Topic,
    Disk,
}

/// All of one gateway's configuration that matters here.
#[derive(Debug, Clone)]
pub struct Desk {
    pub(super) config: BridgeConfig,
    pub(super) gateway: String,
    pub(super) data_dir: PathBuf,
    /// `None` where Kafka is not needed.
    pub(super) cluster: Option<Cluster>,
    /// The topic's letters are looked at.
    in_topic: bool,
    /// The gateway has a spool of dead letters, and it is looked at.
    on_disk: bool,
}

impl Desk {
    pub fn open(
        config: BridgeConfig,
        gateway: &str,
        data_dir: &Path,
        source: Source,
    ) -> Result<Self, LettersFault> {
        let cluster = match source {
            Source::Disk => None,
            _ if config.kafka.is_embedded() => return Err(LettersFault::Embedded),
            Source::All | Source::Topic => Some(Cluster::open(&config.kafka)?),
        };
        let on_disk = source != Source::Topic && data_dir.join(super::DIRECTORY).is_dir();
        Ok(Self {
            config,
            gateway: gateway.to_owned(),
            data_dir: data_dir.to_owned(),
            cluster,
            in_topic: source != Source::Disk,
            on_disk,
        })
    }

    /// The same letters, with Kafka to send them to.
    pub fn with_kafka(mut self) -> Result<Self, LettersFault> {
        if self.config.kafka.is_embedded() {
            return Err(LettersFault::Embedded);
        }
        if self.cluster.is_none() {
            self.cluster = Some(Cluster::open(&self.config.kafka)?);
        }
        Ok(self)
    }

    /// What is settled of the letters that Kafka took at `since_ms` or later, and of all on disk.
    pub async fn settled(&self, since_ms: Option<i64>) -> Result<Settled, LettersFault> {
        let mut settled = Settled::default();
        settled
            .read_file(&self.data_dir)
            .map_err(|source| self.marks_fault(source))?;
        let Some(cluster) = &self.cluster else {
            return Ok(settled);
        };
        let gateway = self.gateway.clone();
        let (sender, outcome) = tokio::sync::oneshot::channel();
        let mut marks = Marks {
            settled: Some(settled),
            outcome: Some(sender),
        };
        let topic = self.config.kafka.dead_letter_topic.clone();
        cluster
            .each_record(topic, since_ms, move |seen| {
                match mark_of(|name| seen.header(name), &gateway) {
                    Some(mark) => marks.set(mark),
                    None => ControlFlow::Continue(()),
                }
            })
            .await?;
        // The stream has ended, and with it `marks`.
        match outcome.await {
            Ok(settled) => Ok(settled?),
            Err(_) => Err(LettersFault::Kafka("the reader crashed".into())),
        }
    }

    /// Every letter, the topic's first, settled ones among them. Dropping the receiver ends it.
    pub fn letters(&self, since_ms: Option<i64>) -> mpsc::Receiver<Result<DeadLetter, LettersFault>> {
        let (sender, letters) = mpsc::channel(AHEAD);
        let desk = self.clone();
        tokio::spawn(async move {
            if let Some(cluster) = desk.cluster.as_ref().filter(|_| desk.in_topic) {
                let topic = desk.config.kafka.dead_letter_topic.clone();
                let (taken, mut copies) = (sender.clone(), Copies::default());
                let read = cluster.each_record(topic, since_ms, move |seen| {
                    if seen.header(header::SETTLED).is_some() {
                        return ControlFlow::Continue(());
                    }
                    let letter = copies.look(DeadLetter::of_record(seen.record()));
                    match taken.blocking_send(Ok(letter)) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_gone) => ControlFlow::Break(()),
                    }
                });
                if let Err(fault) = read.await {
                    let _gone = sender.send(Err(fault.into())).await;
                    return;
                }
            }
            if desk.on_disk {
                let read = tokio::task::spawn_blocking(move || {
                    if let Err(fault) = desk.read_disk(&sender) {
                        let _gone = sender.blocking_send(Err(fault));
                    }
                });
                let _crashed = read.await;
            }
        });
        letters
    }

    fn read_disk(
        &self,
        letters: &mpsc::Sender<Result<DeadLetter, LettersFault>>,
    ) -> Result<(), LettersFault> {
        let kept = Inspection::open(&self.data_dir.join(super::DIRECTORY))?;
        let gateway = kept.gateway_id().unwrap_or(&self.gateway).to_owned();
        let mut copies = Copies::default();
        let begin = kept.cursors().iter().filter_map(|cursor| cursor.position).min();
        let mut walk = kept.walk(begin.unwrap_or_default());
        while let Some(step) = walk.step()? {
            match step {
                Step::Records(records) => {
                    for stored in &records {
                        let letter = copies.look(DeadLetter::of_stored(stored, &gateway));
                        if letters.blocking_send(Ok(letter)).is_err() {
                            return Ok(());
                        }
                    }
                }
                Step::Lost { sequences, cause, .. } => {
                    let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
                    tracing::error!(first, last, %cause, "dead letters on disk cannot be read");
                }
            }
        }
        Ok(())
    }

    pub(super) fn marks_fault(&self, source: io::Error) -> LettersFault {
        LettersFault::Marks {
            path: Settled::file_path(&self.data_dir),
            source,
        }
    }
}

/// A mark as it is read back.
struct Mark {
    place: Place,
    settlement: Settlement,
    begun: Option<Begun>,
}

/// The mark that a record of the topic is, if it is one and of a letter that this gateway's configuration reaches.
fn mark_of<'a>(header: impl Fn(&str) -> Option<&'a str>, gateway: &str) -> Option<Mark> {
    let settlement = Settlement::named(header(header::SETTLED)?)?;
    let place = header(header::LETTER)?.parse().ok()?;
    let ours = matches!(place, Place::Topic { .. }) || header(header::GATEWAY) == Some(gateway);
    let begun = || {
        Some(Begun {
            record_id: header(header::RECORD_ID)?.parse().ok()?,
            topic: header(header::KAFKA_TOPIC)?.to_owned(),
            at_ms: parse_production_time(header(header::SETTLED_AT)?)?,
        })
    };
    ours.then(|| Mark {
        place,
        settlement,
        begun: (settlement == Settlement::Begun).then(begun).flatten(),
    })
}

/// Gathers marks on the reader's thread and gives them back when that is done.
struct Marks {
    settled: Option<Settled>,
    outcome: Option<tokio::sync::oneshot::Sender<Result<Settled, TooMany>>>,
}

impl Marks {
    fn set(&mut self, mark: Mark) -> ControlFlow<()> {
        let Some(settled) = &mut self.settled else {
            return ControlFlow::Break(());
        };
        let set = match mark.begun {
            Some(begun) => settled.begin(mark.place, begun),
            None => settled.set(mark.place, mark.settlement),
        };
        match set {
            Ok(()) => ControlFlow::Continue(()),
            Err(too_many) => {
                self.settled = None;
                if let Some(outcome) = self.outcome.take() {
                    let _gone = outcome.send(Err(too_many));
                }
                ControlFlow::Break(())
            }
        }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        if let (Some(settled), Some(outcome)) = (self.settled.take(), self.outcome.take()) {
            let _gone = outcome.send(Ok(settled));
        }
    }
}

/// Remembers the last records, so that a copy is known as one.
#[derive(Default)]
struct Copies {
    places: HashMap<Uuid, Place>,
    order: VecDeque<Uuid>,
}

impl Copies {
    fn look(&mut self, mut letter: DeadLetter) -> DeadLetter {
        let Some(id) = letter.record_id else {
            return letter;
        };
        if let Some(first) = self.places.get(&id) {
            letter.repeats = Some(*first);
            return letter;
        }
        self.places.insert(id, letter.place);
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        letter
    }
}
