//! Batches on their way through the store, and the acknowledgements that follow, in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use super::handshake::Client;
use super::intake::{Answer, Batch, Owed};
use crate::codec::encode::{self, AckKind};
use crate::codec::{Protocol, reason};
use crate::hub::Hub;
use crate::message::Message;
use crate::persistence::{NotDurable, Wait};
use crate::session::{Received, SessionState};
use crate::tap::{NotStored, Receipt, Refused, Tap, Verdict};

/// What one connection has given to the store and not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Not taken by the store so far.
    waiting: VecDeque<Batch>,
    /// Taken, their receipts open.
    offered: VecDeque<Offered>,
    /// Topic and payload bytes of both.
    bytes: usize,
    waiting_bytes: usize,
    /// QoS 1 publishes of both; those of QoS 2 are in the session.
    qos_1: usize,
}

#[derive(Debug)]
struct Offered {
    /// `None` where no packet of the batch went to the store.
    receipt: Option<Receipt>,
    /// The receipt's answer, once it came and the copies were given out.
    verdicts: Option<Vec<Verdict>>,
    /// What is kept of the copies for a restart must be durable too.
    kept: Option<Wait>,
    owed: Vec<Owed>,
    copies: Vec<Arc<Message>>,
    bytes: usize,
}

/// A stored batch.
#[derive(Debug)]
pub(crate) struct Stored {
    owed: Vec<Owed>,
    verdicts: Vec<Verdict>,
}

/// What an offer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Nothing waits.
    Done,
    /// The store has no room now.
    Busy,
}

impl Acks {
    pub(crate) fn add(&mut self, batch: Batch) {
        self.bytes += batch.bytes;
        self.waiting_bytes += batch.bytes;
        self.qos_1 += batch.qos_1;
        self.waiting.push_back(batch);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that the store has not taken.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// QoS 1 publishes without their PUBACK.
    pub(crate) fn qos_1(&self) -> usize {
        self.qos_1
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.offered.is_empty()
    }

    /// Offers what waits, oldest first.
    pub(crate) fn offer(&mut self, tap: &dyn Tap) -> Result<Offer, NotStored> {
        while let Some(batch) = self.waiting.front_mut() {
            let receipt = if batch.offer.messages.is_empty() && batch.offer.released.is_empty() {
                None
            } else {
                match tap.offer(std::mem::take(&mut batch.offer)) {
                    Ok(receipt) => Some(receipt),
                    Err(Refused::Busy(offer)) => {
                        batch.offer = offer;
                        return Ok(Offer::Busy);
                    }
                    Err(Refused::Closed(_)) => return Err(NotStored),
                }
            };
            if let Some(Batch {
                owed, copies, bytes, ..
            }) = self.waiting.pop_front()
            {
                self.waiting_bytes -= bytes;
                self.offered.push_back(Offered {
                    receipt,
                    verdicts: None,
                    kept: None,
                    owed,
                    copies,
                    bytes,
                });
            }
        }
        Ok(Offer::Done)
    }

    /// The oldest offered batch, once it is stored, and what its subscribers get is kept where it must be. Pending
    /// where none is offered.
    pub(crate) fn poll_stored(&mut self, cx: &mut Context<'_>, hub: &Hub) -> Poll<Result<Stored, NotStored>> {
        let Some(first) = self.offered.front_mut() else {
            return Poll::Pending;
        };
        let stored = ready!(first.poll(cx, hub));
        let Some(Offered {
            owed,
            verdicts,
            bytes,
            ..
        }) = self.offered.pop_front()
        else {
            return Poll::Pending;
        };
        self.bytes -= bytes;
        self.qos_1 -= qos_1(&owed);
        stored?;
        let verdicts = verdicts.unwrap_or_default();
        let expected = owed.iter().filter(|owed| owed.answer == Answer::Verdict).count();
        if verdicts.len() != expected {
            tracing::error!(
                expected,
                got = verdicts.len(),
                "the store answered for another number of messages"
            );
            return Poll::Ready(Err(NotStored));
        }
        Poll::Ready(Ok(Stored { owed, verdicts }))
    }

    /// Forgets what the store has not taken: the client has no acknowledgement of it and repeats it.
    pub(crate) fn forget_waiting(&mut self) {
        for batch in std::mem::take(&mut self.waiting) {
            self.bytes -= batch.bytes;
            self.qos_1 -= batch.qos_1;
        }
        self.waiting_bytes = 0;
    }

    /// What the session keeps when the connection ends before its receipts come: a QoS 2 publish stays in it until
    /// it is known to be stored, or it could be stored a second time. Nothing of it is answered: the identifiers are
    /// the next connection's.
    pub(crate) fn into_unsettled(mut self) -> Self {
        self.forget_waiting();
        self.qos_1 = 0;
        for owed in self.offered.iter_mut().flat_map(|offered| &mut offered.owed) {
            owed.silent = true;
        }
        self
    }

    /// Whether the QoS 2 publish of that number is with the store.
    pub(crate) fn owes(&self, reception: u32) -> bool {
        let mut owed = self.offered.iter().flat_map(|offered| &offered.owed);
        owed.any(|owed| owed.qos == 2 && owed.reception == reception && owed.answer == Answer::Verdict)
    }
}

impl Offered {
    fn poll(&mut self, cx: &mut Context<'_>, hub: &Hub) -> Poll<Result<(), NotStored>> {
        if self.verdicts.is_none() {
            let verdicts = match &mut self.receipt {
                Some(receipt) => ready!(Pin::new(receipt).poll(cx))?,
                None => Vec::new(),
            };
            self.verdicts = Some(verdicts);
            let tickets = self.copies.drain(..).filter_map(|copy| hub.dispatch(&copy));
            self.kept = hub.wait(tickets.max());
        }
        match &mut self.kept {
            Some(kept) => Pin::new(kept).poll(cx).map_err(|NotDurable| NotStored),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Stored {
    /// Settles QoS 2 in the session and writes the acknowledgements.
    pub(crate) fn acknowledge(
        self,
        hub: &Hub,
        client: &Client,
        state: &mut SessionState,
        out: &mut BytesMut,
    ) {
        let mut verdicts = self.verdicts.into_iter();
        let (mut stored, mut unrouted, mut dead_lettered) = (0, 0, 0);
        for owed in self.owed {
            let verdict = match owed.answer {
                Answer::Verdict => verdicts.next().unwrap_or(Verdict::Stored),
                Answer::Fixed(reason) => {
                    acknowledge(client, out, owed, reason, None);
                    continue;
                }
                Answer::Repeated => {
                    let known = state.received.contains_key(&owed.packet_id);
                    let reason = if known {
                        reason::SUCCESS
                    } else {
                        reason::PAYLOAD_FORMAT_INVALID
                    };
                    acknowledge(client, out, owed, reason, None);
                    continue;
                }
                Answer::Released(reason) => {
                    complete(client, state, out, owed, reason);
                    continue;
                }
            };
            if owed.qos == 0 {
                continue;
            }
            match verdict {
                Verdict::Stored => {
                    stored += 1;
                    settle(client, state, owed, state.durable, false);
                    acknowledge(client, out, owed, reason::SUCCESS, None);
                }
                Verdict::Unrouted => {
                    unrouted += 1;
                    settle(client, state, owed, false, false);
                    // Nobody got it: a publisher whose topic is misspelt can see that.
                    let nobody = owed.qos == 1 && !owed.subscribed;
                    let reason = if nobody {
                        reason::NO_MATCHING_SUBSCRIBERS
                    } else {
                        reason::SUCCESS
                    };
                    acknowledge(client, out, owed, reason, None);
                }
                Verdict::DeadLettered { reason: text } => {
                    dead_lettered += 1;
                    settle(client, state, owed, state.durable, true);
                    acknowledge(client, out, owed, reason::PAYLOAD_FORMAT_INVALID, Some(&text));
                }
            }
        }
        hub.metrics.acknowledged_stored.increment(stored);
        hub.metrics.acknowledged_unrouted.increment(unrouted);
        hub.metrics.acknowledged_dead_lettered.increment(dead_lettered);
    }
}

fn qos_1(owed: &[Owed]) -> usize {
    owed.iter().filter(|owed| owed.qos == 1 && !owed.silent).count()
}

/// Notes what became of a QoS 2 publish.
fn settle(client: &Client, state: &mut SessionState, owed: Owed, kept: bool, dead: bool) {
    let current = state.received.get(&owed.packet_id).map(|open| open.number);
    if owed.qos != 2 || current != Some(owed.reception) {
        // A newer message has the identifier.
        return;
    }
    if dead && client.protocol == Protocol::V5 {
        // A PUBREC that refuses ends the exchange: no PUBREL comes.
        state.received.remove(&owed.packet_id);
        return;
    }
    let received = if kept { Received::Stored } else { Received::Passed };
    state.progress(owed.packet_id, received);
}

fn acknowledge(client: &Client, out: &mut BytesMut, owed: Owed, reason: u8, text: Option<&str>) {
    if owed.silent {
        return;
    }
    let kind = match owed.qos {
        0 => return,
        1 => AckKind::Ack,
        _ => AckKind::Received,
    };
    let text = text.filter(|_| client.problem_information);
    encode::ack(
        out,
        client.protocol,
        kind,
        owed.packet_id,
        reason,
        text,
        client.max_packet_bytes,
    );
}

/// PUBCOMP.
fn complete(client: &Client, state: &mut SessionState, out: &mut BytesMut, owed: Owed, reason: u8) {
    if owed.silent {
        // The client repeats PUBREL, and is answered then.
        return;
    }
    // Not that of a next message with the same identifier.
    let open = state.received.get(&owed.packet_id);
    if open.is_some_and(|open| open.progress != Received::Pending) {
        state.received.remove(&owed.packet_id);
    }
    encode::ack(
        out,
        client.protocol,
        AckKind::Complete,
        owed.packet_id,
        reason,
        None,
        u32::MAX,
    );
}
