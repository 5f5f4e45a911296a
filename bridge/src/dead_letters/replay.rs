//! Letters on their way again, and letters given up.
//!
//! A replay asks the contract and the routes of now. The production API gets a record under its own id, so that it
//! knows it. For Kafka a replay is three steps, each confirmed before the next: the mark `begun` into the dead-letter
//! topic, the record, the mark `replayed`. Whoever finds the first mark without the last one, since a replay was cut off,
//! looks for the record in its topic by its id before it is sent again. Not a transaction: the migration client takes
//! the marker of a commit for a record, and dies of it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use serde_json::json;
use shopfloor_proto::v1::TelemetryBatch;
use time::OffsetDateTime;
use uuid::Uuid;

use super::desk::{Desk, LettersFault};
use super::header;
use super::letter::{DeadLetter, Place};
use super::plan::Way;
use super::settled::{Begun, Settled, Settlement};
use crate::contract::timestamp::production_time;
use crate::kafka::{Cluster, Outgoing, Producer, Undelivered};
use crate::sinks::api::client::{Answer, ApiClient};
use crate::spool::SpoolError;

/// How long Kafka or the API may be away before a replay gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What Kafka has not confirmed by then is given up; a later replay looks whether it is there.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Clocks of machines that replay may be this far apart.
const CLOCKS_APART_MS: i64 = 600_000;
/// Between two tries of one batch.
const PAUSE: Duration = Duration::from_millis(500);

/// What the production API said to all that was posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiCounts {
    pub stored: u64,
    /// It had them already.
    pub duplicates: u64,
    /// They wait there for their machine or part, or for somebody to look.
    pub quarantined: u64,
}

/// Settles letters.
#[derive(Debug)]
pub struct Settler {
    desk: Desk,
    api: Option<ApiClient>,
    producer: Option<Producer<usize>>,
    dead_letter_topic: Arc<str>,
    settled: Settled,
    pub api_counts: ApiCounts,
    /// Topics that exist for sure.
    topics: Vec<String>,
    marks_changed: bool,
    _lock: Option<File>,
}

impl Settler {
    /// Reads what is settled, and finishes replays that were cut off.
    pub async fn begin(desk: &Desk, since_ms: Option<i64>) -> Result<Self, LettersFault> {
        let lock = lock(desk)?;
        let api = match desk.config.api.url {
            Some(_) => Some(ApiClient::new(&desk.config.api).map_err(LettersFault::ApiConfig)?),
            None => None,
        };
        let dead_letter_topic = desk.config.kafka.dead_letter_topic.clone();
        let mut producer = None;
        if let Some(cluster) = &desk.cluster {
            cluster.ensure_topics(vec![dead_letter_topic.clone()]).await?;
            producer = Some(cluster.producer(Some(GIVE_UP_AFTER))?);
        }
        let mut settler = Self {
            settled: desk.settled(since_ms).await?,
            desk: desk.clone(),
            api,
            producer,
            topics: vec![dead_letter_topic.clone()],
            dead_letter_topic: dead_letter_topic.into(),
            api_counts: ApiCounts::default(),
            marks_changed: false,
            _lock: lock,
        };
        settler.finish().await?;
        Ok(settler)
    }

    /// Marks what a replay that was cut off had already brought to Kafka.
    async fn finish(&mut self) -> Result<(), LettersFault> {
        let begun = self.settled.take_begun();
        let Some(cluster) = self.desk.cluster.clone().filter(|_| !begun.is_empty()) else {
            return Ok(());
        };
        tracing::warn!(
            letters = begun.len(),
            "a replay was cut off; looking whether its records are in Kafka"
        );
        let mut by_topic: BTreeMap<String, Vec<(Place, Begun)>> = BTreeMap::new();
        for (place, begun) in begun {
            by_topic
                .entry(begun.topic.clone())
                .or_default()
                .push((place, begun));
        }
        for (topic, letters) in by_topic {
            let there = there(&cluster, topic, &letters).await?;
            for (place, begun) in letters {
                let settlement = if there.contains(&begun.record_id) {
                    Settlement::Replayed
                } else {
                    Settlement::Refused
                };
                let mark = self.mark(place, begun.record_id, settlement, "");
                self.hand_over_all(vec![mark]).await?;
                self.note([place].into_iter(), settlement)?;
            }
        }
        Ok(())
    }

    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// A letter that only repeats one that is settled needs a mark of its own and nothing else.
    pub fn is_settled_copy(&self, letter: &DeadLetter) -> Option<Settlement> {
        self.settled.of(letter.repeats?)
    }

    /// Sends the letters on their ways. One outcome a letter, in their order; those that succeeded are marked.
    pub async fn replay(
        &mut self,
        letters: &[(DeadLetter, Way)],
    ) -> Result<Vec<Result<(), String>>, LettersFault> {
        let mut outcomes: Vec<Result<(), String>> = letters.iter().map(|_| Ok(())).collect();
        self.post(letters, &mut outcomes).await?;
        self.produce(letters, &mut outcomes).await?;
        let done = letters
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.is_ok());
        let done: Vec<&DeadLetter> = done.map(|((letter, _), _)| letter).collect();
        let marks = done
            .iter()
            .filter_map(|letter| self.mark_of(letter, Settlement::Replayed));
        self.hand_over_all(marks.collect()).await?;
        self.note(done.iter().map(|letter| letter.place), Settlement::Replayed)?;
        Ok(outcomes)
    }

    /// Marks the letters without sending them anywhere.
    pub async fn settle(
        &mut self,
        letters: &[DeadLetter],
        settlement: Settlement,
    ) -> Result<(), LettersFault> {
        let in_topic = letters
            .iter()
            .filter(|letter| matches!(letter.place, Place::Topic { .. }));
        let marks = in_topic.filter_map(|letter| self.mark_of(letter, settlement));
        self.hand_over_all(marks.collect()).await?;
        self.note(letters.iter().map(|letter| letter.place), settlement)
    }

    fn note(
        &mut self,
        places: impl Iterator<Item = Place>,
        settlement: Settlement,
    ) -> Result<(), LettersFault> {
        let mut on_disk = false;
        for place in places {
            self.settled.set(place, settlement)?;
            on_disk |= matches!(place, Place::Disk { .. });
        }
        if on_disk {
            self.marks_changed = true;
            self.settled
                .write_file(&self.desk.data_dir, 0)
                .map_err(|source| self.desk.marks_fault(source))?;
        }
        Ok(())
    }

    /// Gives the disk space of settled letters back, where the gateway does not have them open; it does so itself at its
    /// next start.
    pub async fn end(self) -> Result<(), LettersFault> {
        if !self.marks_changed {
            return Ok(());
        }
        let gave = super::last_resort::trim(&self.desk.data_dir, &self.desk.gateway, &self.settled).await;
        match gave {
            Ok(first_open) => self
                .settled
                .write_file(&self.desk.data_dir, first_open)
                .map_err(|source| self.desk.marks_fault(source)),
            // They are marked; space is all that is not given back.
            Err(SpoolError::Locked { .. }) => Ok(()),
            Err(fault) => {
                tracing::warn!(%fault, "the disk space of settled dead letters is not given back");
                Ok(())
            }
        }
    }

    async fn post(
        &mut self,
        letters: &[(DeadLetter, Way)],
        outcomes: &mut [Result<(), String>],
    ) -> Result<(), LettersFault> {
        let mut by_gateway: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, (letter, way)) in letters.iter().enumerate() {
            if way.to_api {
                by_gateway.entry(&letter.gateway).or_default().push(index);
            }
        }
        for (gateway, indices) in by_gateway {
            if self.post_batch(gateway, letters, &indices).await?.is_ok() {
                continue;
            }
            // One of them is at fault: each alone.
            for index in indices {
                if let Err(Refused(why)) = self.post_batch(gateway, letters, &[index]).await?
                    && let Some(outcome) = outcomes.get_mut(index)
                {
                    *outcome = Err(why);
                }
            }
        }
        Ok(())
    }

    async fn post_batch(
        &mut self,
        gateway: &str,
        letters: &[(DeadLetter, Way)],
        indices: &[usize],
    ) -> Result<Result<(), Refused>, LettersFault> {
        let Some(api) = &self.api else {
            return Ok(Ok(()));
        };
        let batch = TelemetryBatch {
            gateway: gateway.to_owned(),
            records: indices
                .iter()
                .filter_map(|index| letters.get(*index)?.1.telemetry.clone())
                .collect(),
        };
        let body = Bytes::from(batch.encode_to_vec());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match api.post(body.clone()).await {
                Answer::Stored(result) => {
                    self.api_counts.stored += u64::from(result.stored);
                    self.api_counts.duplicates += u64::from(result.duplicates);
                    self.api_counts.quarantined += u64::from(result.quarantined);
                    return Ok(Ok(()));
                }
                Answer::Refused(refusal) => return Ok(Err(Refused(refusal.reason))),
                Answer::Later { why, .. } if Instant::now() >= deadline => {
                    return Err(LettersFault::Api(why));
                }
                Answer::Later { .. } => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The records of those letters that go to Kafka and have not failed before.
    async fn produce(
        &mut self,
        letters: &[(DeadLetter, Way)],
        outcomes: &mut [Result<(), String>],
    ) -> Result<(), LettersFault> {
        let going = letters.iter().enumerate().zip(outcomes.iter());
        let going = going.filter(|(_, outcome)| outcome.is_ok());
        let going: Vec<(usize, &DeadLetter, &Outgoing<usize>)> = going
            .filter_map(|((index, (letter, way)), _)| Some((index, letter, way.record.as_ref()?)))
            .collect();
        self.ensure_topics(going.iter().map(|(_, _, record)| &*record.topic))
            .await?;
        let begun = going.iter().filter_map(|(_, letter, record)| {
            Some(self.mark(letter.place, letter.record_id?, Settlement::Begun, &record.topic))
        });
        self.hand_over_all(begun.collect()).await?;
        let records = going.iter().map(|(_, _, record)| (None, clone_of(record)));
        let confirmed = self.hand_over(records.collect()).await?;
        let mut given_back = Vec::new();
        for ((index, letter, record), confirmed) in going.into_iter().zip(confirmed) {
            let confirmed = match confirmed {
                // Another one of its batch may be at fault.
                Err(Undelivered::Suspect(_)) => {
                    let alone = self.hand_over(vec![(None, clone_of(record))]).await?.pop();
                    alone.unwrap_or_else(|| Err(Undelivered::Again("it was not confirmed".into())))
                }
                confirmed => confirmed,
            };
            match confirmed {
                Ok(()) => {}
                Err(Undelivered::Again(why)) => return Err(LettersFault::Unsettled(why)),
                Err(Undelivered::Refused(why) | Undelivered::Suspect(why)) => {
                    given_back.extend(self.mark_of(letter, Settlement::Refused));
                    if let Some(outcome) = outcomes.get_mut(index) {
                        *outcome = Err(format!("Kafka refuses it: {why}"));
                    }
                }
            }
        }
        self.hand_over_all(given_back).await
    }

    async fn ensure_topics<'a>(&mut self, topics: impl Iterator<Item = &'a str>) -> Result<(), LettersFault> {
        let mut missing: Vec<String> = topics
            .filter(|topic| !self.topics.iter().any(|known| known == topic))
            .map(str::to_owned)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if let Some(cluster) = self.desk.cluster.as_ref().filter(|_| !missing.is_empty()) {
            cluster.ensure_topics(missing.clone()).await?;
            self.topics.extend(missing);
        }
        Ok(())
    }

    /// For marks: what Kafka does not take here stops everything.
    async fn hand_over_all(&self, records: Vec<Handed>) -> Result<(), LettersFault> {
        let confirmed = self.hand_over(records).await?;
        let failed = confirmed.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |why| Err(LettersFault::Unsettled(why.to_string())))
    }

    /// Hands records to Kafka and waits for each; one outcome a record, in their order.
    async fn hand_over(&self, records: Vec<Handed>) -> Result<Vec<Result<(), Undelivered>>, LettersFault> {
        let mut outcomes: Vec<Option<Result<(), Undelivered>>> = records.iter().map(|_| None).collect();
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let Some(producer) = &self.producer else {
            return Err(LettersFault::Unsettled("only the disk is looked at".into()));
        };
        let mut open = 0_usize;
        for (index, (partition, mut record)) in records.into_iter().enumerate() {
            record.origin = index;
            match (producer.produce_to(partition, record), outcomes.get_mut(index)) {
                (Ok(()), _) => open += 1,
                (Err(why), Some(outcome)) => *outcome = Some(Err(why)),
                (Err(_), None) => {}
            }
        }
        while open > 0 {
            let confirmations = tokio::time::timeout(PATIENCE, producer.confirmations()).await;
            let late = |_| LettersFault::Unsettled("no confirmation in time".into());
            for confirmation in confirmations.map_err(late)? {
                open = open.saturating_sub(1);
                if let Some(outcome) = outcomes.get_mut(confirmation.origin) {
                    *outcome = Some(confirmation.outcome);
                }
            }
        }
        let unknown = || Err(Undelivered::Again("it was not confirmed".into()));
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(unknown))
            .collect())
    }

    /// `None` where only the disk is looked at: the file beside it has the marks then.
    fn mark_of(&self, letter: &DeadLetter, settlement: Settlement) -> Option<Handed> {
        self.producer.as_ref()?;
        Some(self.mark(letter.place, letter.record_id.unwrap_or_default(), settlement, ""))
    }

    /// The mark of a letter in the topic goes behind it, into its partition; `topic` is where a replay sends it.
    fn mark(&self, place: Place, record_id: Uuid, settlement: Settlement, topic: &str) -> Handed {
        let partition = match place {
            Place::Topic { partition, .. } => Some(partition),
            Place::Disk { .. } => None,
        };
        let (id, place) = (record_id.to_string(), place.to_string());
        let now_ms = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        let now = i64::try_from(now_ms)
            .ok()
            .and_then(production_time)
            .unwrap_or_default();
        let value = json!({ "settled": settlement.name(), "letter": place, "record_id": id, "at": now });
        let mut headers = vec![
            (header::SETTLED, Bytes::from(settlement.name())),
            (header::LETTER, place.into()),
            (header::GATEWAY, Bytes::from(self.desk.gateway.clone())),
            (header::RECORD_ID, Bytes::from(id.clone())),
            (header::SETTLED_AT, now.into()),
        ];
        if !topic.is_empty() {
            headers.push((header::KAFKA_TOPIC, Bytes::copy_from_slice(topic.as_bytes())));
        }
        let record = Outgoing {
            topic: self.dead_letter_topic.clone(),
            key: id.into(),
            value: value.to_string().into(),
            headers,
            origin: 0,
        };
        (partition, Box::new(record))
    }
}

/// Which of the letters' records the topic holds.
async fn there(
    cluster: &Cluster,
    topic: String,
    letters: &[(Place, Begun)],
) -> Result<HashSet<Uuid>, LettersFault> {
    let wanted: HashSet<Uuid> = letters.iter().map(|(_, begun)| begun.record_id).collect();
    let since_ms = letters
        .iter()
        .map(|(_, begun)| begun.at_ms)
        .min()
        .unwrap_or_default();
    let since_ms = since_ms.saturating_sub(CLOCKS_APART_MS).max(0);
    let found = Arc::new(Mutex::new(HashSet::new()));
    let finds = found.clone();
    cluster
        .each_record(topic, Some(since_ms), move |seen| {
            let id = seen.header(header::RECORD_ID).and_then(|id| id.parse().ok());
            if let Some(id) = id.filter(|id| wanted.contains(id)) {
                finds.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
            ControlFlow::Continue(())
        })
        .await?;
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *found))
}

type Handed = (Option<i32>, Box<Outgoing<usize>>);

/// It will not be taken as it is.
struct Refused(String);

fn clone_of(record: &Outgoing<usize>) -> Box<Outgoing<usize>> {
    Box::new(Outgoing {
        topic: record.topic.clone(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        origin: 0,
    })
}

/// Keeps other commands from the marks of letters on disk; nothing where there is no data directory.
fn lock(desk: &Desk) -> Result<Option<File>, LettersFault> {
    if !desk.data_dir.is_dir() {
        return Ok(None);
    }
    let path = desk.data_dir.join("dead-letters-settled.lock");
    let locked = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| LettersFault::Marks {
            path: path.clone(),
            source,
        })?;
    match locked.try_lock() {
        Ok(()) => Ok(Some(locked)),
        Err(_) => Err(LettersFault::Locked(desk.data_dir.clone())),
    }
}
