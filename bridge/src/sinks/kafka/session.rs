//! One producer's life, and what is in its transaction that has not ended.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::aside::Aside;
use super::committed::Passed;
use super::{Drafts, KafkaSink, Origin};
use crate::kafka::Producer;
use crate::spool::Reader;

/// Why a session ended.
pub(super) enum End {
    Stopped,
    /// A new session must find out where to go on.
    Again(String),
    /// As `Again`, at once: a record was refused, and it is known what to do with it.
    Redo(String),
    /// Another gateway has this one's id.
    Replaced(String),
}

/// When to end.
pub(super) struct Ends<'a> {
    /// Nothing new is begun.
    pub(super) stop: &'a CancellationToken,
    /// What is under way is left.
    pub(super) give_up: &'a CancellationToken,
}

/// What is known from one session to the next.
#[derive(Default)]
pub(super) struct Known {
    /// The claims that may stand last in the cursor's topic: what the last session found, and its own.
    pub(super) claims: Option<[Option<Uuid>; 2]>,
    /// The last record that the cursor has passed.
    pub(super) passed: Option<Passed>,
    pub(super) aside: Aside,
}

pub(super) struct Session<'a> {
    pub(super) sink: &'a KafkaSink,
    pub(super) known: &'a mut Known,
    pub(super) producer: Producer<Origin>,
    pub(super) reader: Reader,
    pub(super) drafts: Drafts,
    pub(super) cursor_topic: Arc<str>,
    pub(super) claim: Uuid,
}

/// What is in a transaction that has not ended.
pub(super) struct Open {
    pub(super) first: u64,
    /// Where the cursor goes when it is committed.
    pub(super) position: u64,
    pub(super) passed: Option<Passed>,
    /// Taken from the spool.
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Its only record is a suspect, so what is refused is that.
    pub(super) alone: bool,
    /// Handed over and not confirmed.
    pub(super) outstanding: usize,
    pub(super) failure: Option<Failure>,
}

/// Why a transaction cannot be committed.
pub(super) enum Failure {
    /// A record is refused, and set aside.
    Refused(String),
    Other(String),
}

impl Open {
    pub(super) fn at(position: u64) -> Self {
        Self {
            first: position,
            position,
            passed: None,
            records: 0,
            bytes: 0,
            alone: false,
            outstanding: 0,
            failure: None,
        }
    }

    pub(super) fn refused(&mut self, why: String) {
        self.failure = Some(Failure::Refused(why));
    }
}
