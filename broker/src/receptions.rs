//! QoS 2 publishes received from one client and not yet released by it.

use std::collections::HashMap;

use crate::quota::Share;
use crate::tap::Exchange;

/// Of a session's share, for one identifier here and its exchange in the store.
const RECEPTION_BYTES: usize = 128;

/// Those of one session, by packet identifier. They outlive connections; against the receive maximum count those that
/// the connection which has the session now has sent, or sent again.
#[derive(Debug)]
pub(crate) struct Receptions {
    open: HashMap<u16, Reception>,
    /// How many of them came on this connection.
    here: usize,
    last_number: u32,
    share: Share,
}

/// The QoS 2 publish that has a packet identifier now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reception {
    /// Tells it from one before it with the same identifier, whose receipt is still to come. Zero is nobody's.
    pub(crate) number: u32,
    /// As its exchange's.
    pub(crate) content: u32,
    pub(crate) progress: Received,
    /// The store may have an exchange of a message that had the identifier before.
    kept: bool,
    here: bool,
}

/// How far a received QoS 2 publish is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Offered to the store; neither acknowledged nor known to be stored.
    Pending,
    /// The store has it and its exchange: a repeated PUBLISH is answered and not stored again, also after a restart.
    Stored,
    /// Answered, but the store keeps no exchange for it: the session or the message concerns this process only.
    Passed,
    /// As `Stored`, by an earlier process, of which nobody knows whether it told the subscribers.
    Recovered,
    /// As `Pending`, since an earlier connection.
    Unsettled,
    /// PUBREL came; PUBCOMP goes when that is stored.
    Releasing,
}

impl Reception {
    /// The store may have an exchange under the identifier.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept || self.progress != Received::Passed
    }
}

impl Receptions {
    pub(crate) fn new(share: Share) -> Self {
        Self {
            open: HashMap::new(),
            here: 0,
            last_number: 0,
            share,
        }
    }

    /// Takes up what an earlier process has left open.
    pub(crate) fn recover(&mut self, exchanges: &[Exchange]) {
        for exchange in exchanges {
            let reception = Reception {
                number: 0,
                content: exchange.content,
                progress: Received::Recovered,
                kept: false,
                here: false,
            };
            if self.open.insert(exchange.packet_id, reception).is_none() {
                self.share.grow_anyway(RECEPTION_BYTES);
            }
        }
    }

    /// A connection takes the session up: nothing is under way on it.
    pub(crate) fn begin_connection(&mut self) {
        self.here = 0;
        self.open.values_mut().for_each(|open| open.here = false);
    }

    /// Publishes under way on this connection.
    pub(crate) fn here(&self) -> usize {
        self.here
    }

    pub(crate) fn get(&self, packet_id: u16) -> Option<Reception> {
        self.open.get(&packet_id).copied()
    }

    /// How far the message is that a QoS 2 publish repeats, which is under way here from now on; `None` where it is a
    /// new one. The identifier alone says too little: it may be open since before the client went on at another
    /// gateway or lost its state, and a message that is taken for that one is acknowledged and lost. So in doubt it
    /// is new.
    pub(crate) fn repeat(&mut self, packet_id: u16, dup: bool, content: u32) -> Option<Received> {
        let open = self.open.get_mut(&packet_id)?;
        let same = dup && open.content == content && open.progress != Received::Releasing;
        if !same {
            return None;
        }
        self.here += usize::from(!std::mem::replace(&mut open.here, true));
        Some(open.progress)
    }

    /// Gives the identifier to a new message, whoever had it. `None` where no further identifier may be kept.
    pub(crate) fn begin(&mut self, packet_id: u16, content: u32, max_open: usize) -> Option<u32> {
        let before = self.open.get(&packet_id);
        if before.is_none() && (self.open.len() >= max_open || !self.share.grow(RECEPTION_BYTES)) {
            return None;
        }
        self.here += usize::from(!before.is_some_and(|before| before.here));
        self.last_number = self.last_number.checked_add(1).unwrap_or(1);
        let reception = Reception {
            number: self.last_number,
            content,
            progress: Received::Pending,
            kept: before.is_some_and(Reception::is_kept),
            here: true,
        };
        self.open.insert(packet_id, reception);
        Some(reception.number)
    }

    pub(crate) fn progress(&mut self, packet_id: u16, progress: Received) {
        if let Some(reception) = self.open.get_mut(&packet_id) {
            reception.progress = progress;
        }
    }

    /// The exchange is over.
    pub(crate) fn end(&mut self, packet_id: u16) {
        if let Some(open) = self.open.remove(&packet_id) {
            self.here -= usize::from(open.here);
            self.share.shrink(RECEPTION_BYTES);
        }
    }

    /// Its connection has ended: of what it had under way, only what the store was offered (`owed`, by number) counts.
    /// The rest is stored when the client repeats it.
    pub(crate) fn end_connection(&mut self, owed: impl Fn(u32) -> bool) {
        let before = self.open.len();
        self.open.retain(|_, reception| {
            let pending = matches!(reception.progress, Received::Pending | Received::Unsettled);
            if pending {
                reception.progress = Received::Unsettled;
            }
            !pending || owed(reception.number)
        });
        self.share.shrink((before - self.open.len()) * RECEPTION_BYTES);
        self.begin_connection();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    fn receptions() -> Receptions {
        Receptions::new(Quota::new(1024 * 1024).share())
    }

    #[test]
    fn what_an_earlier_connection_left_open_does_not_count_until_it_is_sent_again() {
        let mut receptions = receptions();
        for packet_id in 1..=3 {
            assert!(receptions.begin(packet_id, 7, 10).is_some());
            receptions.progress(packet_id, Received::Stored);
        }
        assert_eq!(receptions.here(), 3);
        receptions.end_connection(|_| false);
        assert_eq!(receptions.here(), 0);
        assert_eq!(receptions.repeat(1, true, 7), Some(Received::Stored));
        assert_eq!(receptions.repeat(1, true, 7), Some(Received::Stored));
        assert_eq!(receptions.here(), 1);
        receptions.end(2);
        assert_eq!(receptions.here(), 1, "it was not under way here");
        receptions.end(1);
        assert_eq!(receptions.here(), 0);
        assert!(receptions.get(3).is_some());
    }

    #[test]
    fn an_identifier_that_the_store_has_stays_to_be_released_when_a_message_takes_it_that_the_store_has_not()
    {
        let mut receptions = receptions();
        assert!(receptions.begin(1, 7, 10).is_some());
        receptions.progress(1, Received::Stored);
        for packet_id in 1..=2 {
            assert!(receptions.begin(packet_id, 8, 10).is_some());
            receptions.progress(packet_id, Received::Passed);
        }
        let kept = |packet_id| receptions.get(packet_id).is_some_and(|open| open.is_kept());
        assert!(kept(1) && !kept(2));
    }

    #[test]
    fn the_identifiers_kept_are_bounded_and_one_of_them_can_still_be_used_anew() {
        let mut receptions = receptions();
        assert!(receptions.begin(1, 7, 2).is_some());
        assert!(receptions.begin(2, 7, 2).is_some());
        assert_eq!(receptions.begin(3, 7, 2), None);
        assert!(receptions.begin(2, 8, 2).is_some());
        receptions.end(1);
        assert!(receptions.begin(3, 7, 2).is_some());
    }

    #[test]
    fn what_was_never_offered_to_the_store_is_forgotten_with_its_connection() {
        let mut receptions = receptions();
        let first = receptions.begin(1, 7, 10);
        receptions.begin(2, 7, 10);
        receptions.end_connection(|number| Some(number) == first);
        assert_eq!(
            receptions.get(1).map(|open| open.progress),
            Some(Received::Unsettled)
        );
        assert_eq!(receptions.get(2), None);
    }
}
