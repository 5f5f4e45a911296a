//! The tables of the database.
//!
//! ```text
//! sessions        session → client id, expiry, when it was left, will
//! subscriptions   session, filter → options
//! queue           session, position → message, QoS, retain, subscription identifiers
//! sent            session, position → packet identifier, and whether PUBREC came; then the queue has no row for it
//! retained        topic → message
//! meta            "format", "age_ms", "wall_ms"
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use prost::Message as _;
use redb::{ReadableTable as _, Table, TableDefinition, TableError, WriteTransaction};

use super::change::{Change, Found, Restored};
use super::error::PersistenceError;
use super::records::{DeliveryRecord, MessageRecord, SessionRecord, SubscriptionRecord};
use crate::config::PersistenceConfig;
use crate::message::now_ms;
use crate::session_parts::{Inflight, Stage, Subscribed};

const FORMAT_VERSION: u64 = 1;
const FILE: &str = "sessions.redb";

const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
const SUBSCRIPTIONS: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("subscriptions");
const QUEUE: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("queue");
const SENT: TableDefinition<'_, (u64, u64), (u16, bool)> = TableDefinition::new("sent");
const RETAINED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("retained");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
const AGE_MS: &str = "age_ms";
const WALL_MS: &str = "wall_ms";

/// Opens the database, at the start and after each error.
type Opener = Box<dyn Fn() -> Result<redb::Database, redb::Error> + Send>;

/// The open database.
pub(super) struct Database {
    path: PathBuf,
    opener: Opener,
    /// `None` after an error, until it could be opened again.
    open: Option<redb::Database>,
}

/// A commit did not take place.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .path.display())]
pub(super) struct CommitError {
    path: PathBuf,
    source: Box<redb::Error>,
}

impl Database {
    /// Opens or creates it; gives what it holds and the age of the store.
    pub(super) fn open(
        dir: &Path,
        config: &PersistenceConfig,
    ) -> Result<(Self, Restored, u64), PersistenceError> {
        std::fs::create_dir_all(dir).map_err(|source| PersistenceError::Create {
            dir: dir.to_owned(),
            source,
        })?;
        let path = dir.join(FILE);
        let (file, cache_bytes) = (path.clone(), config.cache_bytes);
        let opener = move || {
            let mut builder = redb::Database::builder();
            builder.set_cache_size(cache_bytes);
            Ok(builder.create(&file)?)
        };
        Self::open_with(path, Box::new(opener))
    }

    pub(super) fn open_with(
        path: PathBuf,
        opener: Opener,
    ) -> Result<(Self, Restored, u64), PersistenceError> {
        let failed = |error: redb::Error| match error {
            redb::Error::DatabaseAlreadyOpen => PersistenceError::Locked { path: path.clone() },
            redb::Error::Io(source) if source.kind() != ErrorKind::InvalidData => PersistenceError::Io {
                path: path.clone(),
                source,
            },
            other => PersistenceError::Unreadable {
                path: path.clone(),
                source: Box::new(other),
            },
        };
        let database = opener().map_err(failed)?;
        let meta = meta(&database).map_err(failed)?;
        if let Some(found) = meta.format.filter(|found| *found != FORMAT_VERSION) {
            return Err(PersistenceError::Version {
                path: path.clone(),
                found,
                known: FORMAT_VERSION,
            });
        }
        let restored = Restored {
            last_ms: meta.age_ms,
            ..load(&database).map_err(failed)?
        };
        let this = Self {
            path: path.clone(),
            opener,
            open: Some(database),
        };
        Ok((this, restored, meta.age_ms(now_ms())))
    }

    /// After an error. Where it does not open, the next commit says so.
    pub(super) fn reopen(&mut self) {
        // The file's lock goes with the old one.
        self.open = None;
        self.open = (self.opener)().ok();
    }

    /// Commits all of `changes`, or nothing. Repeating it is harmless.
    pub(super) fn commit(&mut self, changes: &[Change], age_ms: u64) -> Result<(), CommitError> {
        let committed = match &self.open {
            Some(database) => commit(database, changes, age_ms),
            None => (self.opener)().and_then(|database| {
                let database = self.open.insert(database);
                commit(database, changes, age_ms)
            }),
        };
        committed.map_err(|source| CommitError {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }
}

fn commit(database: &redb::Database, changes: &[Change], age_ms: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(AGE_MS, age_ms)?;
        meta.insert(WALL_MS, u64::try_from(now_ms()).unwrap_or(0))?;
        let mut tables = Tables::open(&transaction)?;
        for change in changes {
            tables.apply(change)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The tables in one transaction.
struct Tables<'a> {
    sessions: Table<'a, u64, &'static [u8]>,
    subscriptions: Table<'a, (u64, &'static str), &'static [u8]>,
    queue: Table<'a, (u64, u64), &'static [u8]>,
    sent: Table<'a, (u64, u64), (u16, bool)>,
    retained: Table<'a, &'static str, &'static [u8]>,
}

impl<'a> Tables<'a> {
    /// Opens all, so that each is there from then on.
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            subscriptions: transaction.open_table(SUBSCRIPTIONS)?,
            queue: transaction.open_table(QUEUE)?,
            sent: transaction.open_table(SENT)?,
            retained: transaction.open_table(RETAINED)?,
        })
    }

    fn apply(&mut self, change: &Change) -> Result<(), redb::Error> {
        match change {
            Change::Session(session) => {
                let record = SessionRecord::from(&**session).encode_to_vec();
                self.sessions.insert(session.key, record.as_slice())?;
            }
            Change::End { session, .. } => {
                self.sessions.remove(session)?;
                let of_session = (*session, "")..(session.saturating_add(1), "");
                self.subscriptions.retain_in(of_session, |_, _| false)?;
                let of_session = (*session, 0)..(session.saturating_add(1), 0);
                self.queue.retain_in(of_session.clone(), |_, _| false)?;
                self.sent.retain_in(of_session, |_, _| false)?;
            }
            Change::Subscribe {
                session,
                filter,
                subscribed,
            } => {
                let record = SubscriptionRecord::from(subscribed).encode_to_vec();
                self.subscriptions
                    .insert((*session, filter.as_str()), record.as_slice())?;
            }
            Change::Unsubscribe { session, filter } => {
                self.subscriptions.remove((*session, filter.as_str()))?;
            }
            Change::Retain(message) => {
                let topic = message.topic.as_str();
                if message.payload.is_empty() {
                    self.retained.remove(topic)?;
                } else {
                    let record = MessageRecord::from(&**message).encode_to_vec();
                    self.retained.insert(topic, record.as_slice())?;
                }
            }
            Change::Queue { session, delivery } => {
                let record = DeliveryRecord::from(delivery).encode_to_vec();
                self.queue
                    .insert((*session, delivery.position), record.as_slice())?;
            }
            Change::Sent {
                session,
                position,
                packet_id,
            } => {
                self.sent.insert((*session, *position), (*packet_id, false))?;
            }
            Change::Received {
                session,
                position,
                packet_id,
                ..
            } => {
                self.queue.remove((*session, *position))?;
                self.sent.insert((*session, *position), (*packet_id, true))?;
            }
            Change::Done {
                session, position, ..
            } => {
                self.queue.remove((*session, *position))?;
                self.sent.remove((*session, *position))?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) format: Option<u64>,
    pub(super) age_ms: u64,
    pub(super) wall_ms: u64,
}

impl Meta {
    /// The age now. Time between two processes goes by the wall clock, but never backwards.
    pub(super) fn age_ms(&self, now_ms: i64) -> u64 {
        if self.format.is_none() {
            return 0;
        }
        let away_ms = u64::try_from(now_ms).unwrap_or(0).saturating_sub(self.wall_ms);
        self.age_ms + away_ms
    }
}

fn meta(database: &redb::Database) -> Result<Meta, redb::Error> {
    let transaction = redb::ReadableDatabase::begin_read(database)?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Meta::default()),
        Err(error) => return Err(error.into()),
    };
    let value = |key: &str| Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value()));
    Ok(Meta {
        format: value(FORMAT)?,
        age_ms: value(AGE_MS)?.unwrap_or(0),
        wall_ms: value(WALL_MS)?.unwrap_or(0),
    })
}

fn load(database: &redb::Database) -> Result<Restored, redb::Error> {
    // So that every table is there to be read.
    commit_tables(database)?;
    let transaction = redb::ReadableDatabase::begin_read(database)?;
    let mut sessions = BTreeMap::new();
    for row in transaction.open_table(SESSIONS)?.iter()? {
        let (key, value) = row?;
        let session = SessionRecord::read(value.value())?.into_session(key.value());
        let found = Found {
            session,
            filters: BTreeMap::new(),
            inflight: VecDeque::new(),
            queue: VecDeque::new(),
        };
        sessions.insert(key.value(), found);
    }
    for row in transaction.open_table(SUBSCRIPTIONS)?.iter()? {
        let (key, value) = row?;
        let (session, filter) = key.value();
        let subscribed = Subscribed::from(SubscriptionRecord::read(value.value())?);
        if let Some(found) = sessions.get_mut(&session) {
            found.filters.insert(filter.to_owned(), subscribed);
        }
    }
    let sent = transaction.open_table(SENT)?;
    for row in transaction.open_table(QUEUE)?.iter()? {
        let (key, value) = row?;
        let (session, position) = key.value();
        let Some(found) = sessions.get_mut(&session) else {
            continue;
        };
        let delivery = DeliveryRecord::read(value.value())?.into_delivery(position)?;
        match sent.get((session, position))?.map(|sent| sent.value()) {
            Some((packet_id, _)) => found.inflight.push_back(Inflight {
                packet_id,
                position,
                stage: Stage::Published(delivery),
            }),
            None => found.queue.push_back(delivery),
        }
    }
    for row in sent.iter()? {
        let (key, value) = row?;
        let (session, position) = key.value();
        if let ((packet_id, true), Some(found)) = (value.value(), sessions.get_mut(&session)) {
            found.inflight.push_back(Inflight {
                packet_id,
                position,
                stage: Stage::Released,
            });
        }
    }
    for found in sessions.values_mut() {
        // Positions were given in the order of sending.
        found
            .inflight
            .make_contiguous()
            .sort_by_key(|inflight| inflight.position);
    }
    let mut retained = Vec::new();
    for row in transaction.open_table(RETAINED)?.iter()? {
        let (_topic, value) = row?;
        retained.push(MessageRecord::read(value.value())?.into_message()?);
    }
    Ok(Restored {
        sessions: sessions.into_values().collect(),
        retained,
        ..Restored::default()
    })
}

fn commit_tables(database: &redb::Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?;
    transaction.commit()?;
    Ok(())
}
