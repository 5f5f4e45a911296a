//! Stored batches to acknowledgements.

use bytes::BytesMut;

use super::client::Client;
use crate::acks::{Answer, Owed, Stored};
use crate::codec::encode::{self, AckKind};
use crate::codec::{Protocol, reason};
use crate::hub::Hub;
use crate::receptions::Received;
use crate::session::SessionState;
use crate::tap::Verdict;

/// Settles QoS 2 in the session and writes the acknowledgements.
pub(crate) fn stored(
    batch: Stored,
    hub: &Hub,
    client: &Client,
    state: &mut SessionState,
    out: &mut BytesMut,
) {
    let mut verdicts = batch.verdicts.into_iter();
    let (mut stored, mut unrouted, mut dead_lettered) = (0, 0, 0);
    for owed in batch.owed {
        let verdict = match owed.answer {
            Answer::Verdict => verdicts.next().unwrap_or(Verdict::Stored),
            Answer::Fixed(reason) => {
                acknowledge(client, out, owed, reason, None);
                continue;
            }
            Answer::Repeated => {
                let known = state.received.get(owed.packet_id).is_some();
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

/// Notes what became of a QoS 2 publish.
fn settle(client: &Client, state: &mut SessionState, owed: Owed, kept: bool, dead: bool) {
    let current = state.received.get(owed.packet_id).map(|open| open.number);
    if owed.qos != 2 || current != Some(owed.reception) {
        // A newer message has the identifier.
        return;
    }
    if dead && client.protocol == Protocol::V5 {
        // A PUBREC that refuses ends the exchange: no PUBREL comes.
        state.received.end(owed.packet_id);
        return;
    }
    let received = if kept { Received::Stored } else { Received::Passed };
    state.received.progress(owed.packet_id, received);
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
    let open = state.received.get(owed.packet_id);
    if open.is_some_and(|open| open.progress != Received::Pending) {
        state.received.end(owed.packet_id);
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
