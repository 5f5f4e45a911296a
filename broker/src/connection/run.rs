//! The loop of one connection: it waits for whatever comes first, and never for one thing only.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::acknowledge;
use super::close::Close;
use super::device::Connection;
use super::outgoing::Outgoing;
use crate::acks::{Offer, Stored};
use crate::counts::Counts;
use crate::mailbox::Order;
use crate::tap::NotStored;

/// Bytes read on while the store has no room, so that a PINGREQ behind a few publishes is found.
const MAX_READ_WHILE_BUSY_BYTES: usize = 64 * 1024;

/// What the connection's task woke up for.
enum Wake {
    Read(usize),
    Stored(Result<Stored, NotStored>),
    /// The store may have room again.
    Room,
    Mail,
    Order(Order),
    Timer,
    Gone,
}

type Room<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Serves the client until its connection has to end.
    pub(crate) async fn run(&mut self) -> Close {
        let hub = Arc::clone(&self.hub);
        let mut room: Option<Room<'_>> = None;
        let mut timer = pin!(tokio::time::sleep_until(self.deadline()));
        self.outgoing
            .resume(&self.client, &mut self.state, &mut self.output.ready);
        if hub.stop.is_cancelled() {
            return Close::ShutDown;
        }
        // What came right behind CONNECT.
        let mut step = self.take_packets();
        loop {
            if let Err(close) = step {
                return close;
            }
            if room.is_none() {
                match self.acks.offer(&*hub.tap) {
                    Ok(Offer::Done) => {}
                    Ok(Offer::Busy) => {
                        hub.metrics.stalled.increment(1);
                        room = Some(hub.tap.room());
                    }
                    Err(NotStored) => return Close::NotStored,
                }
            }
            let unread = !self.may_read();
            let wake = poll_fn(|cx| self.poll_wake(cx, &mut room, timer.as_mut())).await;
            if unread && self.packet_began.is_some() {
                // The client cannot help it that nothing was read.
                self.packet_began = Some(Instant::now());
            }
            step = match wake {
                Wake::Read(count) => {
                    Counts::add(&hub.counts.bytes_received, count as u64);
                    self.last_read = Instant::now();
                    self.take_packets()
                }
                Wake::Stored(stored) => self.stored(stored),
                Wake::Room => {
                    room = None;
                    Ok(())
                }
                Wake::Mail => {
                    self.deliver();
                    Ok(())
                }
                Wake::Order(Order::TakenOver) => Err(Close::TakenOver),
                Wake::Order(Order::ShutDown) => Err(Close::ShutDown),
                Wake::Order(Order::QueueFull) => Err(Close::QueueFull),
                Wake::Timer => self.check_time(),
                Wake::Gone => Err(Close::PeerGone),
            };
            if self.deadline() < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(self.deadline());
            }
        }
    }

    /// Writes what it can, then gives the first thing that there is to do.
    fn poll_wake(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut Option<Room<'_>>,
        timer: Pin<&mut Sleep>,
    ) -> Poll<Wake> {
        if self.poll_write(cx).is_err() {
            return Poll::Ready(Wake::Gone);
        }
        while let Poll::Ready(moved) = self.output.poll_held(cx) {
            if moved.is_err() {
                return Poll::Ready(Wake::Stored(Err(NotStored)));
            }
            if self.poll_write(cx).is_err() {
                return Poll::Ready(Wake::Gone);
            }
        }
        if let Poll::Ready(stored) = self.acks.poll_stored(cx, |copies| self.hub.give_out(copies)) {
            return Poll::Ready(Wake::Stored(stored));
        }
        if let Some(waiting) = room
            && waiting.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Wake::Room);
        }
        // Until it is pending, so that the waker is registered.
        while let Poll::Ready(order) = self.session.mailbox.poll_signal(cx) {
            self.outgoing.mail = true;
            if let Some(order) = order {
                return Poll::Ready(Wake::Order(order));
            }
        }
        if self.outgoing.mail && self.may_deliver() {
            return Poll::Ready(Wake::Mail);
        }
        if let Some(count) = self.unhandled.take() {
            return Poll::Ready(Wake::Read(count));
        }
        if self.may_read()
            && let Poll::Ready(read) = self.input.poll_fill(&mut self.stream, cx)
        {
            let Ok(count @ 1..) = read else {
                return Poll::Ready(Wake::Gone);
            };
            if !self.input.begins_with_publish() {
                return Poll::Ready(Wake::Read(count));
            }
            // The runtime begins with the task that it woke last. A PUBLISH takes its turn behind the SUBSCRIBE that
            // another connection had sent before it.
            self.unhandled = Some(count);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        timer.poll(cx).map(|()| Wake::Timer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.output.poll_write(&mut self.stream, cx, &self.hub.counts)
    }

    pub(crate) fn may_read(&self) -> bool {
        self.paused_until.is_none()
            && !self.output.is_full()
            && self.acks.bytes() < self.hub.config.max_unacknowledged_bytes
            && self.acks.waiting_bytes() < MAX_READ_WHILE_BUSY_BYTES
    }

    fn may_deliver(&self) -> bool {
        !self.output.is_full() && Outgoing::has_window(&self.hub, &self.client, &self.state)
    }

    fn deliver(&mut self) {
        let Self {
            hub,
            client,
            session,
            state,
            output,
            outgoing,
            ..
        } = self;
        outgoing.check_access(hub, client, session, state);
        outgoing.deliver(hub, client, session, state, output);
    }

    fn stored(&mut self, stored: Result<Stored, NotStored>) -> Result<(), Close> {
        let stored = stored.map_err(|NotStored| Close::NotStored)?;
        let Self {
            hub,
            client,
            state,
            output,
            ..
        } = self;
        acknowledge::stored(stored, hub, client, state, &mut output.ready);
        Ok(())
    }
}
