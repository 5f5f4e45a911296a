//! The write buffer: packets to the client, and those that may go only when a change of its session is durable.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::held::Held;
use crate::codec::{Frame, frame};
use crate::counts::Counts;
use crate::persistence::{NotDurable, Wait};

/// Bytes towards the client beyond which nothing more is read or delivered until it has read some.
const MAX_OUT_BYTES: usize = 64 * 1024;
/// Below this an emptied buffer is kept.
const MIN_OUT_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Output {
    /// Packets that may go.
    pub(crate) ready: BytesMut,
    held: Held,
    /// Bytes of `ready` whose packets are counted as sent.
    counted: usize,
    /// Written, and perhaps still with TLS or a WebSocket.
    unflushed: bool,
    last_write: Instant,
}

impl Output {
    pub(crate) fn new(ready: BytesMut, now: Instant) -> Self {
        Self {
            ready,
            held: Held::default(),
            counted: 0,
            unflushed: false,
            last_write: now,
        }
    }

    /// Whether the client has to read first.
    pub(crate) fn is_full(&self) -> bool {
        self.ready.len() + self.held.bytes() >= MAX_OUT_BYTES
    }

    /// Sends `packet` when what it relies on is durable.
    pub(crate) fn send_after(&mut self, wait: Option<Wait>, packet: BytesMut) {
        match wait {
            Some(wait) => self.held.hold(wait, packet),
            None => self.ready.unsplit(packet),
        }
    }

    /// Since when the client has not read what is there for it.
    pub(crate) fn unread_since(&self) -> Option<Instant> {
        (self.unflushed || !self.ready.is_empty()).then_some(self.last_write)
    }

    /// Moves what became durable to `ready`. Ready when something was moved.
    pub(crate) fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotDurable>> {
        self.held.poll(cx, &mut self.ready)
    }

    /// Writes what the socket takes.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        counts: &Counts,
    ) -> io::Result<()> {
        self.count_packets(counts);
        while !self.ready.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.ready) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.ready.advance(count);
                    self.unflushed = true;
                    self.counted = self.counted.saturating_sub(count);
                    Counts::add(&counts.bytes_sent, count as u64);
                    self.last_write = Instant::now();
                }
                Poll::Ready(Ok(_)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(stream).poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        self.give_back();
        Ok(())
    }

    /// Emptied: keeps a useful size under load, nothing while idle.
    fn give_back(&mut self) {
        if self.ready.capacity() == 0 {
            return;
        }
        if self.ready.capacity() > MAX_OUT_BYTES || !self.ready.try_reclaim(MIN_OUT_BYTES) {
            self.ready = BytesMut::new();
        } else {
            self.ready.clear();
        }
    }

    /// Counts the packets that came into `ready` since the last time.
    fn count_packets(&mut self, counts: &Counts) {
        let mut packets = 0;
        while let Some(rest) = self.ready.get(self.counted..).filter(|rest| !rest.is_empty())
            && let Ok(Frame::Complete { total, .. }) = frame(rest, usize::MAX)
        {
            self.counted += total;
            packets += 1;
        }
        if packets > 0 {
            Counts::add(&counts.packets_sent, packets);
        }
    }
}
