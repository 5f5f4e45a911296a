//! One device connection, from its first byte to what it leaves behind.
//!
//! - [`buffer`]: the read buffer.
//! - [`handshake`]: CONNECT to CONNACK.
//! - [`intake`]: PUBLISH packets to batches for the store.
//! - [`acks`]: batches to acknowledgements, in order, after their receipts.
//! - [`subscribe`]: SUBSCRIBE and UNSUBSCRIBE; [`held`]: packets that wait until a change is durable.
//! - [`outgoing`]: messages to the client and its acknowledgements of them.
//! - [`throttle`]: how fast a client may send.
//! - [`close`]: why a connection ends.
//!
//! One task serves one connection; it alone touches the session's state. Nothing in it waits for one thing only:
//! while the store has no room, PINGREQ is still answered and subscribers still get their messages.

pub(crate) mod acks;
mod buffer;
mod close;
mod handshake;
mod held;
mod intake;
mod outgoing;
mod subscribe;
mod throttle;

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, Sleep};

use crate::codec::encode;
use crate::codec::{DecodeError, Disconnect, Frame, Packet, Protocol, decode, frame, reason};
use crate::hub::Hub;
use crate::mailbox::Order;
use crate::metrics;
use crate::session::{Session, SessionState};
use crate::sys::Counts;
use crate::tap::NotStored;
use acks::{Acks, Offer, Stored};
use buffer::ReadBuffer;
use close::Close;
pub(crate) use handshake::Peer;
use handshake::{Admitted, Client, handshake};
use held::Held;
use intake::Intake;
use outgoing::Outgoing;
use throttle::Throttle;

/// Bytes towards the client beyond which nothing more is read or delivered until it has read some.
const MAX_OUT_BYTES: usize = 64 * 1024;
/// Bytes read on while the store has no room, so that a PINGREQ behind a few publishes is found.
const MAX_READ_WHILE_BUSY_BYTES: usize = 64 * 1024;
/// Time without traffic after which a large read buffer is given back.
const IDLE: Duration = Duration::from_secs(1);
/// Time for a last packet to a client that is closed.
const LAST_WRITE: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: u64 = 4 * 1024 * 1024;
/// Time for the receipts of a connection that has ended.
const SETTLE: Duration = Duration::from_secs(5);

/// Serves one accepted connection until it has ended and what it leaves behind is settled.
pub(crate) async fn serve<S>(hub: Arc<Hub>, mut stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    // Boxed: the handshake's state is large and short-lived, an idle connection should not carry it.
    let Some(admitted) = Box::pin(handshake(&hub, &mut stream, peer)).await else {
        return;
    };
    hub.metrics.connected.increment(1.0);
    hub.sys.counts.connect();
    let mut connection = Connection::new(Arc::clone(&hub), stream, admitted);
    // A panic ends this connection alone; what it had taken and not acknowledged its client repeats.
    let run = AssertUnwindSafe(connection.run()).catch_unwind().await;
    let close = run.unwrap_or(Close::Panicked);
    hub.metrics.connected.decrement(1.0);
    hub.sys.counts.disconnect();
    metrics::closed(close.kind());
    tracing::debug!(peer = %address, client = connection.session.client_id, reason = close.kind(), "connection ended: {close}");
    Box::pin(connection.end(close)).await;
}

struct Connection<S> {
    hub: Arc<Hub>,
    stream: S,
    client: Client,
    session: Arc<Session>,
    state: OwnedMutexGuard<SessionState>,
    input: ReadBuffer,
    out: BytesMut,
    held: Held,
    /// Bytes of `out` whose packets are counted as sent.
    counted: usize,
    intake: Intake,
    acks: Acks,
    outgoing: Outgoing,
    throttle: Throttle,
    /// It sent too much: nothing is read until then.
    paused_until: Option<Instant>,
    /// Written, and perhaps still with TLS or a WebSocket.
    unflushed: bool,
    last_read: Instant,
    last_write: Instant,
}

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
    fn new(hub: Arc<Hub>, stream: S, admitted: Admitted) -> Self {
        let Admitted {
            client,
            input,
            out,
            session,
            mut state,
        } = admitted;
        let now = Instant::now();
        Self {
            intake: Intake::new(Arc::clone(&client.publisher), session.key),
            acks: std::mem::take(&mut state.unsettled),
            outgoing: Outgoing::new(),
            throttle: Throttle::new(&hub.config, now),
            paused_until: None,
            unflushed: false,
            last_read: now,
            last_write: now,
            hub,
            stream,
            client,
            session,
            state,
            input,
            out,
            held: Held::default(),
            counted: 0,
        }
    }

    async fn run(&mut self) -> Close {
        let hub = Arc::clone(&self.hub);
        let mut room: Option<Room<'_>> = None;
        let mut timer = pin!(tokio::time::sleep_until(self.deadline()));
        self.outgoing.resume(&self.client, &mut self.state, &mut self.out);
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
            let wake = poll_fn(|cx| self.poll_wake(cx, &mut room, timer.as_mut())).await;
            step = match wake {
                Wake::Read(count) => {
                    Counts::add(&hub.sys.counts.bytes_received, count as u64);
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
        while let Poll::Ready(moved) = self.held.poll(cx, &mut self.out) {
            if moved.is_err() {
                return Poll::Ready(Wake::Stored(Err(NotStored)));
            }
            if self.poll_write(cx).is_err() {
                return Poll::Ready(Wake::Gone);
            }
        }
        if let Poll::Ready(stored) = self.acks.poll_stored(cx, &self.hub) {
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
        if self.may_read()
            && let Poll::Ready(read) = self.input.poll_fill(&mut self.stream, cx)
        {
            return Poll::Ready(match read {
                Ok(0) | Err(_) => Wake::Gone,
                Ok(count) => Wake::Read(count),
            });
        }
        timer.poll(cx).map(|()| Wake::Timer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        self.count_sent();
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.out.advance(count);
                    self.unflushed = true;
                    self.counted = self.counted.saturating_sub(count);
                    Counts::add(&self.hub.sys.counts.bytes_sent, count as u64);
                    self.last_write = Instant::now();
                }
                Poll::Ready(_) => return Err(()),
                Poll::Pending => return Ok(()),
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            flushed.map_err(|_| ())?;
            self.unflushed = false;
        }
        if self.out.capacity() > 0 {
            // Emptied: keep a useful size under load, nothing while idle.
            if self.out.capacity() > MAX_OUT_BYTES || !self.out.try_reclaim(MIN_OUT_BYTES) {
                self.out = BytesMut::new();
            } else {
                self.out.clear();
            }
        }
        Ok(())
    }

    fn is_writing(&self) -> bool {
        self.unflushed || !self.out.is_empty()
    }

    /// Counts the packets that came into `out` since the last time.
    fn count_sent(&mut self) {
        let mut packets = 0;
        while let Some(rest) = self.out.get(self.counted..).filter(|rest| !rest.is_empty())
            && let Ok(Frame::Complete { total, .. }) = frame(rest, usize::MAX)
        {
            self.counted += total;
            packets += 1;
        }
        if packets > 0 {
            Counts::add(&self.hub.sys.counts.packets_sent, packets);
        }
    }

    fn may_read(&self) -> bool {
        self.paused_until.is_none()
            && self.out.len() + self.held.bytes() < MAX_OUT_BYTES
            && self.acks.bytes() < self.hub.config.max_unacknowledged_bytes
            && self.acks.waiting_bytes() < MAX_READ_WHILE_BUSY_BYTES
    }

    fn may_deliver(&self) -> bool {
        self.out.len() + self.held.bytes() < MAX_OUT_BYTES
            && Outgoing::has_window(&self.hub, &self.client, &self.state)
    }

    fn deliver(&mut self) {
        let Self {
            hub,
            client,
            session,
            state,
            out,
            held,
            outgoing,
            ..
        } = self;
        outgoing.check_access(hub, client, session, state);
        outgoing.deliver(hub, client, session, state, out, held);
    }

    /// When there is something to check next.
    fn deadline(&self) -> Instant {
        let unread = self
            .is_writing()
            .then(|| self.last_write + Duration::from_millis(self.hub.config.write_timeout_ms));
        let silent = self.client.silence.map(|silence| self.last_read + silence);
        let large = self.input.is_large().then(|| self.last_read + IDLE);
        let never = || Instant::now() + Duration::from_secs(24 * 3600);
        unread
            .into_iter()
            .chain(silent)
            .chain(large)
            .chain(self.client.expires)
            .chain(self.paused_until)
            .min()
            .unwrap_or_else(never)
    }

    fn check_time(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if self.client.expires.is_some_and(|expires| now >= expires) {
            return Err(Close::TokenExpired);
        }
        if self.is_writing() {
            let timeout = Duration::from_millis(self.hub.config.write_timeout_ms);
            if now >= self.last_write + timeout {
                return Err(Close::WriteStalled);
            }
        }
        if now >= self.last_read + IDLE {
            self.input.shrink();
        }
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
            self.last_read = now;
        }
        if !self.may_read() {
            // Nothing is read, so nothing can be missed.
            self.last_read = now;
        }
        match self.client.silence {
            Some(silence) if now >= self.last_read + silence => Err(Close::KeepAlive),
            _ => Ok(()),
        }
    }

    fn stored(&mut self, stored: Result<Stored, NotStored>) -> Result<(), Close> {
        let Self {
            hub,
            client,
            state,
            out,
            ..
        } = self;
        stored
            .map_err(|NotStored| Close::NotStored)?
            .acknowledge(hub, client, state, out);
        Ok(())
    }

    /// Handles every complete packet that was read; what they publish becomes batches.
    fn take_packets(&mut self) -> Result<(), Close> {
        let (chunk, error) = self.input.take_complete();
        self.intake.begin();
        let (mut at, mut packets) = (0, 0);
        let mut step = Ok(());
        while step.is_ok()
            && let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty())
        {
            let Ok(Frame::Complete { header, total }) = frame(rest, usize::MAX) else {
                break;
            };
            step = decode(&chunk, at..at + total, header, self.client.protocol)
                .map_err(Close::from)
                .and_then(|packet| self.packet(packet));
            at += total;
            packets += 1;
        }
        self.paused_until = self.throttle.spend(packets, at, self.last_read);
        Counts::add(&self.hub.sys.counts.packets_received, packets as u64);
        if let Some(batch) = self.intake.end(&self.hub) {
            self.acks.add(batch);
        }
        step?;
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// After each publish: a PUBREL behind it in the same read frees no place that it needed. A QoS 2 publish counts
    /// until its PUBREL.
    fn check_receive_maximum(&self) -> Result<(), Close> {
        let unacknowledged = self.acks.qos_1() + self.intake.qos_1() + self.state.received.len();
        if self.client.protocol == Protocol::V5
            && unacknowledged > usize::from(self.hub.config.receive_maximum)
        {
            let rule = "more unacknowledged publishes than the receive maximum";
            return Err(Close::Protocol(DecodeError {
                reason: reason::RECEIVE_MAXIMUM_EXCEEDED,
                rule,
            }));
        }
        Ok(())
    }

    fn packet(&mut self, packet: Packet) -> Result<(), Close> {
        let Self {
            hub,
            client,
            session,
            state,
            out,
            held,
            ..
        } = self;
        match packet {
            Packet::Publish(publish) => {
                if let Some(full) = self.intake.publish(hub, state, publish)? {
                    self.acks.add(full);
                }
                self.check_receive_maximum()?;
            }
            Packet::PubAck(ack) => outgoing::puback(hub, session, state, ack)?,
            Packet::PubRec(ack) => outgoing::pubrec(hub, client, session, state, ack, out, held)?,
            Packet::PubRel(ack) => {
                if let Some(before) = self.intake.release(state, ack) {
                    self.acks.add(before);
                }
            }
            Packet::PubComp(ack) => outgoing::pubcomp(hub, session, state, ack)?,
            Packet::Subscribe(subscribe) => {
                self.outgoing.subscriptions_changed();
                subscribe::subscribe(hub, client, session, state, subscribe, out, held)?;
            }
            Packet::Unsubscribe(unsubscribe) => {
                subscribe::unsubscribe(hub, client, session, state, &unsubscribe, out, held)?;
            }
            Packet::PingReq => encode::pingresp(out),
            Packet::Disconnect(disconnect) => return Err(self.disconnect(disconnect)),
            Packet::Connect(_) => return Err(DecodeError::protocol("a second CONNECT").into()),
            Packet::Auth => return Err(DecodeError::protocol("AUTH without an authentication method").into()),
        }
        Ok(())
    }

    fn disconnect(&mut self, disconnect: Disconnect) -> Close {
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if self.client.ends_with_connection && expiry_s > 0 {
                return DecodeError::protocol("a session expiry in DISCONNECT after none in CONNECT").into();
            }
            self.state.expiry_s = expiry_s.min(self.hub.config.session.max_expiry_s);
        }
        let with_will = disconnect.reason != reason::SUCCESS;
        if !with_will {
            self.state.will = None;
        }
        Close::ByClient { with_will }
    }

    /// Tells the client, settles what is with the store, and lets go of the session.
    async fn end(mut self, close: Close) {
        if close == Close::ShutDown {
            self.drain().await;
        }
        if close == Close::Panicked {
            tracing::error!(
                client = self.session.client_id,
                "a connection's task panicked: it ends, the others go on"
            );
            // What the store has taken is settled below; nobody knows how far the rest is.
            self.acks.forget_waiting();
            self.out.clear();
        }
        if let Some(reason) = close.reason()
            && self.client.protocol == Protocol::V5
        {
            let text = close.text().filter(|_| self.client.problem_information);
            encode::disconnect(&mut self.out, reason, text, self.client.max_packet_bytes);
        }
        let told = !self.out.is_empty() && !matches!(close, Close::PeerGone | Close::WriteStalled);
        if told {
            let _gone = tokio::time::timeout(LAST_WRITE, self.stream.write_all_buf(&mut self.out)).await;
        }
        let _gone = tokio::time::timeout(LAST_WRITE, self.stream.shutdown()).await;
        let Self {
            hub,
            mut stream,
            client,
            session,
            mut state,
            mut acks,
            ..
        } = self;
        settle(&hub, &client, &mut state, &mut acks).await;
        state.unsettled = acks.into_unsettled();
        state.keep_unsettled();
        if !close.publishes_will() {
            state.will = None;
        }
        if state.expiry_s == 0 {
            let _nobody_waits = hub.end_session(&session, &mut state);
        } else {
            hub.leave_behind(&session, &mut state);
        }
        // The session is free for the next connection; this one may still have to read what it was told.
        drop(state);
        if told {
            linger(&mut stream).await;
        }
    }

    /// Waits for the receipts of everything taken and writes their acknowledgements.
    async fn drain(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(self.hub.config.drain_timeout_ms);
        while !self.acks.is_empty() {
            let next = tokio::time::timeout_at(deadline, next_stored(&self.hub, &mut self.acks)).await;
            let Ok(Ok(stored)) = next else { return };
            stored.acknowledge(&self.hub, &self.client, &mut self.state, &mut self.out);
        }
    }
}

/// Reads on until the client has closed, bounded in time and bytes: closing a socket with unread bytes resets it,
/// and the reset can overtake the last packet that was written.
pub(super) async fn linger<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut rest = stream.take(MAX_LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    let _gone = tokio::time::timeout(LAST_WRITE, tokio::io::copy(&mut rest, &mut nowhere)).await;
}

/// Below this an emptied write buffer is kept.
const MIN_OUT_BYTES: usize = 256;

/// Sees to it that what was read is offered and what was offered is counted in the session: a QoS 2 message that
/// is stored must not be stored again when the client repeats it, and one that is not must.
async fn settle(hub: &Hub, client: &Client, state: &mut SessionState, acks: &mut Acks) {
    let deadline = Instant::now() + SETTLE;
    let mut unsent = BytesMut::new();
    while !acks.is_empty() {
        match tokio::time::timeout_at(deadline, next_stored(hub, acks)).await {
            Ok(Ok(stored)) => stored.acknowledge(hub, client, state, &mut unsent),
            // Later batches may be stored all the same; none may be offered past a lost one.
            Ok(Err(NotStored)) => acks.forget_waiting(),
            Err(_elapsed) => return,
        }
    }
}

async fn next_stored(hub: &Hub, acks: &mut Acks) -> Result<Stored, NotStored> {
    loop {
        let offer = acks.offer(&*hub.tap)?;
        if offer == Offer::Done || !acks.is_waiting() {
            return poll_fn(|cx| acks.poll_stored(cx, hub)).await;
        }
        let mut room = hub.tap.room();
        let stored = poll_fn(|cx| match acks.poll_stored(cx, hub) {
            Poll::Ready(stored) => Poll::Ready(Some(stored)),
            Poll::Pending => room.as_mut().poll(cx).map(|()| None),
        });
        if let Some(stored) = stored.await {
            return stored;
        }
    }
}
