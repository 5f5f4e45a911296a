//! Batches on their way through the store, and the acknowledgements that follow, in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::message::Message;
use crate::persistence::{NotDurable, Wait};
use crate::tap::{self, Exchange, NotStored, Receipt, Refused, Tap, Verdict};

/// Publishes of one read, with what is owed for each.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// For the store.
    pub(crate) offer: tap::Batch,
    /// In the order of the packets; those with `Answer::Verdict` are in the order of the messages.
    pub(crate) owed: Vec<Owed>,
    /// Copies for subscribers, given out once the batch is stored.
    pub(crate) copies: Vec<Arc<Message>>,
    /// Topics and payloads, and a little for each packet.
    pub(crate) bytes: usize,
    /// QoS 1 publishes among `owed`.
    pub(crate) qos_1: usize,
}

impl Batch {
    pub(crate) fn owe(&mut self, owed: Owed) {
        // So that packets without a payload cannot pile up either.
        self.bytes += size_of::<Owed>() + size_of::<Exchange>();
        self.qos_1 += usize::from(owed.qos == 1);
        self.owed.push(owed);
    }
}

/// The acknowledgement that one packet waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) packet_id: u16,
    pub(crate) qos: u8,
    /// Owed to a connection that has ended: the identifier means something else to the next one.
    pub(crate) silent: bool,
    /// Number of a QoS 2 publish with `Answer::Verdict`; else zero.
    pub(crate) reception: u32,
    pub(crate) answer: Answer,
    /// Somebody had subscribed to the topic when the packet came.
    pub(crate) subscribed: bool,
}

/// Where its reason code comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Verdict,
    /// The packet was not given to the store: a repeated QoS 2 publish, or one that the front refused.
    Fixed(u8),
    /// It repeats a QoS 2 publish of an earlier connection, whose receipt comes before it.
    Repeated,
    /// It was PUBREL.
    Released(u8),
}

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
    pub(crate) owed: Vec<Owed>,
    /// One for each `Answer::Verdict`.
    pub(crate) verdicts: Vec<Verdict>,
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

    /// The oldest offered batch, once it is stored, and what its subscribers get is kept where it must be:
    /// `give_out` gives them their copies. Pending where none is offered.
    pub(crate) fn poll_stored(
        &mut self,
        cx: &mut Context<'_>,
        give_out: impl FnOnce(&[Arc<Message>]) -> Option<Wait>,
    ) -> Poll<Result<Stored, NotStored>> {
        let Some(first) = self.offered.front_mut() else {
            return Poll::Pending;
        };
        let stored = ready!(first.poll(cx, give_out));
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
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        give_out: impl FnOnce(&[Arc<Message>]) -> Option<Wait>,
    ) -> Poll<Result<(), NotStored>> {
        if self.verdicts.is_none() {
            let verdicts = match &mut self.receipt {
                Some(receipt) => ready!(Pin::new(receipt).poll(cx))?,
                None => Vec::new(),
            };
            self.verdicts = Some(verdicts);
            self.kept = give_out(&std::mem::take(&mut self.copies));
        }
        match &mut self.kept {
            Some(kept) => Pin::new(kept).poll(cx).map_err(|NotDurable| NotStored),
            None => Poll::Ready(Ok(())),
        }
    }
}

fn qos_1(owed: &[Owed]) -> usize {
    owed.iter().filter(|owed| owed.qos == 1 && !owed.silent).count()
}
