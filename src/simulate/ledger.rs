//! Which message has which packet id, what is sent again after a reconnect, and what was settled.
//!
//! A message is *queued* (handed to the client, no packet id yet), then *flying* (written under a packet id), then
//! settled and gone. Both queues keep the machine's order, and the client writes in the order in which it was
//! handed messages, so the first queued one is what an [`Event::Written`] is about.
//!
//! [`Event::Written`]: super::client::Event::Written

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::Resend;
use super::payload::Kind;
use super::payload::Message;

/// Messages between the plan and their settlement.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    queued: VecDeque<Outbound>,
    flying: VecDeque<Flight>,
    /// How many of the flying ones are [`State::Resending`].
    resending: usize,
}

#[derive(Debug)]
struct Outbound {
    message: Message,
    /// When the client was first given it. Not when the write was reported: whoever is scheduled late hears of that
    /// along with the acknowledgement.
    handed: Instant,
    /// Times that it was written to a connection.
    sends: u32,
}

#[derive(Debug)]
struct Flight {
    packet_id: u16,
    outbound: Outbound,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    /// To be written once more under its packet id.
    Resending,
    /// PUBREC came (QoS 2): the broker owns the message.
    Released,
}

/// What a write was.
#[derive(Debug, PartialEq)]
pub(super) enum Written {
    /// A message's first.
    First(Kind),
    /// One more of a message that was written before.
    Again,
    /// Of nothing that this ledger knows.
    Unknown,
}

/// A message whose exchange is over.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) message: Message,
    /// From when the client was first given it, over all reconnects.
    pub(super) latency: Duration,
    /// Times that it was published: more than once where a connection broke before the acknowledgement.
    pub(super) sends: u32,
}

impl Ledger {
    /// Messages that are not settled.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.flying.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that the client was handed `message`.
    pub(super) fn hand(&mut self, message: Message, now: Instant) {
        self.queued.push_back(Outbound {
            message,
            handed: now,
            sends: 0,
        });
    }

    /// A PUBLISH went out.
    pub(super) fn written(&mut self, packet_id: u16) -> Written {
        if self.resending > 0 && self.resent(packet_id) {
            return Written::Again;
        }
        let Some(mut outbound) = self.queued.pop_front() else {
            return Written::Unknown;
        };
        let written = match outbound.sends {
            0 => Written::First(outbound.message.kind),
            _ => Written::Again,
        };
        outbound.sends += 1;
        // Nothing will be heard of a message of QoS 0, so it is done.
        if packet_id != 0 {
            self.flying.push_back(Flight {
                packet_id,
                outbound,
                state: State::Sent,
            });
        }
        written
    }

    fn resent(&mut self, packet_id: u16) -> bool {
        let Some(flight) = self
            .flight(packet_id)
            .filter(|flight| flight.state == State::Resending)
        else {
            return false;
        };
        flight.state = State::Sent;
        flight.outbound.sends += 1;
        self.resending -= 1;
        true
    }

    /// PUBREC: the message must not be published again.
    pub(super) fn received(&mut self, packet_id: u16) {
        let Some(flight) = self.flight(packet_id) else {
            return;
        };
        let was_resending = flight.state == State::Resending;
        flight.state = State::Released;
        self.resending -= usize::from(was_resending);
    }

    /// The exchange under that packet id is over. None where it was before, or never was.
    pub(super) fn settle(&mut self, packet_id: u16, now: Instant) -> Option<Settled> {
        let index = self
            .flying
            .iter()
            .position(|flight| flight.packet_id == packet_id)?;
        let flight = self.flying.remove(index)?;
        self.resending -= usize::from(flight.state == State::Resending);
        Some(flight.settled(now))
    }

    /// A connection stands and the broker kept the session: what is flying goes on under its packet ids.
    pub(super) fn resume(&mut self) -> impl Iterator<Item = Resend<'_>> {
        self.resending = self
            .flying
            .iter()
            .filter(|flight| flight.state != State::Released)
            .count();
        self.flying.iter_mut().map(|flight| {
            let packet_id = flight.packet_id;
            if flight.state == State::Released {
                return Resend::Release { packet_id };
            }
            flight.state = State::Resending;
            Resend::Publish {
                packet_id,
                message: &flight.outbound.message,
            }
        })
    }

    /// A connection stands and the broker has no session: what is flying is queued again, before the rest and in its
    /// order. Returns what the broker had taken over with PUBREC: it is settled, since publishing it again would
    /// make it two.
    pub(super) fn restart(&mut self, now: Instant) -> Vec<Settled> {
        let (released, sent): (Vec<_>, Vec<_>) = self
            .flying
            .drain(..)
            .partition(|flight| flight.state == State::Released);
        self.resending = 0;
        for flight in sent.into_iter().rev() {
            self.queued.push_front(flight.outbound);
        }
        released.into_iter().map(|flight| flight.settled(now)).collect()
    }

    /// What the client must be handed (again), in order.
    pub(super) fn queued(&self) -> impl Iterator<Item = &Message> {
        self.queued.iter().map(|outbound| &outbound.message)
    }

    fn flight(&mut self, packet_id: u16) -> Option<&mut Flight> {
        self.flying
            .iter_mut()
            .find(|flight| flight.packet_id == packet_id)
    }
}

impl Flight {
    fn settled(self, now: Instant) -> Settled {
        Settled {
            sends: self.outbound.sends,
            message: self.outbound.message,
            latency: now.duration_since(self.outbound.handed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::simulate::args::Config;
    use crate::simulate::plan::Plan;

    fn messages() -> impl Iterator<Item = Message> {
        Plan::new(&Config::default()).unwrap().lines().next().unwrap()
    }

    fn order(resend: &Resend<'_>) -> (u16, Option<i32>) {
        match resend {
            Resend::Publish { packet_id, message } => (*packet_id, Some(message.unit.order)),
            Resend::Release { packet_id } => (*packet_id, None),
        }
    }

    #[test]
    fn an_acknowledgement_that_comes_twice_settles_once() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.hand(messages().next().unwrap(), now);
        assert!(matches!(ledger.written(9), Written::First(_)));
        assert_eq!(ledger.settle(9, now).unwrap().message.unit.order, 1);
        assert_eq!(ledger.settle(9, now), None);
        assert_eq!(ledger.settle(10, now), None);
    }

    #[test]
    fn without_a_session_what_was_sent_goes_out_again_before_what_was_not_and_in_order() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        messages().take(4).for_each(|message| ledger.hand(message, now));
        // Packet ids wrap: order is that of the hand-over.
        [16, 1, 2]
            .into_iter()
            .for_each(|id| assert!(matches!(ledger.written(id), Written::First(_))));
        assert!(ledger.settle(1, now).is_some());
        assert!(ledger.restart(now).is_empty());
        assert_eq!(
            ledger
                .queued()
                .map(|message| message.unit.order)
                .collect::<Vec<_>>(),
            [1, 3, 4]
        );
        assert_eq!(ledger.written(1), Written::Again);
        assert_eq!(ledger.settle(1, now).unwrap().sends, 2);
    }

    #[test]
    fn with_a_session_packet_ids_stay_and_a_received_message_is_only_released() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        messages().take(3).for_each(|message| ledger.hand(message, now));
        [16, 1]
            .into_iter()
            .for_each(|id| assert!(matches!(ledger.written(id), Written::First(_))));
        ledger.received(16);
        assert_eq!(
            ledger.resume().map(|r| order(&r)).collect::<Vec<_>>(),
            [(16, None), (1, Some(2))]
        );
        assert_eq!(ledger.written(1), Written::Again);
        assert!(matches!(ledger.written(2), Written::First(_)));
        let sends = [16, 1, 2].map(|id| ledger.settle(id, now).unwrap().sends);
        assert_eq!(sends, [1, 2, 1]);
    }

    #[test]
    fn a_lost_session_settles_what_the_broker_had_received_and_publishes_it_no_more() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        messages().take(2).for_each(|message| ledger.hand(message, now));
        [1, 2]
            .into_iter()
            .for_each(|id| assert!(matches!(ledger.written(id), Written::First(_))));
        ledger.received(1);
        let settled: Vec<_> = ledger
            .restart(now)
            .into_iter()
            .map(|s| s.message.unit.order)
            .collect();
        assert_eq!(settled, [1]);
        assert_eq!(
            ledger
                .queued()
                .map(|message| message.unit.order)
                .collect::<Vec<_>>(),
            [2]
        );
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Hand,
        Write,
        Settle(usize),
        Receive(usize),
        Reconnect { session: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Hand),
            6 => Just(Step::Write),
            4 => (0..4usize).prop_map(Step::Settle),
            2 => (0..4usize).prop_map(Step::Receive),
            1 => any::<bool>().prop_map(|session| Step::Reconnect { session }),
        ]
    }

    /// A client that writes what it is handed in order, and a broker that answers any packet id in flight.
    #[derive(Default)]
    struct World {
        ledger: Ledger,
        /// What the client writes next: an explicit packet id, or one to be given.
        pipe: VecDeque<(Option<u16>, i32)>,
        in_flight: Vec<(u16, i32)>,
        next_id: u16,
        first_writes: Vec<i32>,
        settled: BTreeSet<i32>,
        received: HashMap<u16, i32>,
    }

    impl World {
        fn settle(&mut self, settled: Settled) -> Result<(), TestCaseError> {
            let order = settled.message.unit.order;
            prop_assert!(self.settled.insert(order), "{order} settled twice");
            Ok(())
        }

        fn apply(
            &mut self,
            step: Step,
            handed: &mut dyn Iterator<Item = Message>,
        ) -> Result<(), TestCaseError> {
            let now = Instant::now();
            match step {
                Step::Hand => {
                    let message = handed.next().unwrap();
                    self.pipe.push_back((None, message.unit.order));
                    self.ledger.hand(message, now);
                }
                Step::Write => {
                    let Some((id, order)) = self.pipe.pop_front() else {
                        return Ok(());
                    };
                    prop_assert!(
                        !self.settled.contains(&order),
                        "{order} written after it was settled"
                    );
                    prop_assert!(
                        !self.received.values().any(|o| *o == order),
                        "{order} written after PUBREC"
                    );
                    self.next_id = if id.is_none() {
                        self.next_id % 1000 + 1
                    } else {
                        self.next_id
                    };
                    let id = id.unwrap_or(self.next_id);
                    self.in_flight.push((id, order));
                    if let Written::First(_) = self.ledger.written(id) {
                        self.first_writes.push(order);
                    }
                }
                Step::Settle(index) if index < self.in_flight.len() => {
                    let (id, order) = self.in_flight.remove(index);
                    self.received.remove(&id);
                    let settled = self.ledger.settle(id, now);
                    prop_assert_eq!(settled.as_ref().map(|s| s.message.unit.order), Some(order));
                    settled.map_or(Ok(()), |settled| self.settle(settled))?;
                }
                Step::Receive(index) if index < self.in_flight.len() => {
                    let (id, order) = self.in_flight[index];
                    self.received.insert(id, order);
                    self.ledger.received(id);
                }
                Step::Settle(_) | Step::Receive(_) => {}
                Step::Reconnect { session } => self.reconnect(session, now)?,
            }
            Ok(())
        }

        fn reconnect(&mut self, session: bool, now: Instant) -> Result<(), TestCaseError> {
            self.pipe.clear();
            if session {
                let resends: Vec<_> = self.ledger.resume().map(|resend| order(&resend)).collect();
                self.in_flight.retain(|(id, _)| resends.contains(&(*id, None)));
                self.pipe.extend(
                    resends
                        .into_iter()
                        .filter_map(|(id, order)| Some((Some(id), order?))),
                );
            } else {
                self.in_flight.clear();
                self.received.clear();
                for settled in self.ledger.restart(now) {
                    self.settle(settled)?;
                }
            }
            self.pipe
                .extend(self.ledger.queued().map(|message| (None, message.unit.order)));
            prop_assert!(
                self.pipe.iter().map(|(_, order)| order).is_sorted(),
                "{:?}",
                self.pipe
            );
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn over_any_reconnects_nothing_is_lost_settled_twice_or_out_of_order(
            steps in proptest::collection::vec(step(), 0..200)
        ) {
            let (mut world, mut handed, mut count) = (World::default(), messages(), 0);
            for step in steps {
                count += i32::from(matches!(step, Step::Hand));
                world.apply(step, &mut handed)?;
                prop_assert_eq!(world.ledger.len() + world.settled.len(), count as usize);
            }
            // A last connection without trouble settles the rest.
            world.apply(Step::Reconnect { session: false }, &mut handed)?;
            while !world.pipe.is_empty() {
                world.apply(Step::Write, &mut handed)?;
                world.apply(Step::Settle(0), &mut handed)?;
            }
            prop_assert!(world.ledger.is_empty());
            prop_assert!(world.settled.iter().copied().eq(1..=count));
            prop_assert!(world.first_writes.iter().copied().eq(1..=count), "{:?}", world.first_writes);
        }
    }
}
