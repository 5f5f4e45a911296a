//! The read buffer: small for small traffic, larger under load, small again after it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::codec::{DecodeError, Frame, frame};

/// A message that is kept pins the buffer it was read into, so a buffer starts small and only one that was
/// filled makes the next one larger. An idle connection holds `SMALLEST`.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    bytes: BytesMut,
    next_bytes: usize,
    /// Of the allocation behind `bytes`, as it was made.
    allocated_bytes: usize,
    /// Of the packet that has begun, where its length is known.
    expected_bytes: usize,
    max_packet_bytes: usize,
}

const SMALLEST: usize = 1024;
const LARGEST: usize = 64 * 1024;

impl ReadBuffer {
    pub(crate) fn new(max_packet_bytes: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            next_bytes: SMALLEST,
            allocated_bytes: 0,
            expected_bytes: 0,
            max_packet_bytes,
        }
    }

    pub(crate) fn set_max_packet_bytes(&mut self, max_packet_bytes: usize) {
        self.max_packet_bytes = max_packet_bytes;
    }

    /// The first byte that is not taken yet.
    pub(crate) fn first(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    pub(crate) fn begins_with_publish(&self) -> bool {
        self.first().is_some_and(|first| first >> 4 == 3)
    }

    /// Reads once; gives the number of bytes, 0 at the end.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.bytes.capacity() - self.bytes.len();
        let mut read = std::pin::pin!(stream.read_buf(&mut self.bytes));
        let count = match Pin::new(&mut read).as_mut().poll(cx) {
            Poll::Ready(Ok(count)) => count,
            other => return other,
        };
        if count == room {
            self.next_bytes = (self.next_bytes * 2).min(LARGEST);
        } else if count < self.next_bytes / 4 {
            self.next_bytes = (self.next_bytes / 2).max(SMALLEST);
        }
        Poll::Ready(Ok(count))
    }

    /// A packet that announces its length gets room as its bytes come, never all at once for five bytes.
    fn make_room(&mut self) {
        let held = self.bytes.len();
        if held == 0 && self.allocated_bytes > 4 * self.next_bytes {
            return self.allocate(self.next_bytes);
        }
        let announced = self
            .expected_bytes
            .saturating_sub(held)
            .min(held.max(self.next_bytes));
        let wanted = if self.expected_bytes > 0 {
            announced.max(1)
        } else {
            self.next_bytes
        };
        let room = self.bytes.capacity() - held;
        if room >= wanted
            || (self.expected_bytes == 0 && room >= wanted / 2)
            || self.bytes.try_reclaim(wanted)
        {
            return;
        }
        self.allocate(held + wanted.max(self.next_bytes));
    }

    fn allocate(&mut self, bytes: usize) {
        let mut fresh = BytesMut::with_capacity(bytes);
        fresh.extend_from_slice(&self.bytes);
        self.bytes = fresh;
        self.allocated_bytes = bytes;
    }

    /// Whether a part of a packet waits for the rest.
    pub(crate) fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether there is something for [`Self::shrink`] to give back; not while a packet has begun.
    pub(crate) fn is_large(&self) -> bool {
        self.allocated_bytes > 4 * SMALLEST && self.bytes.is_empty()
    }

    /// Gives a large buffer back.
    pub(crate) fn shrink(&mut self) {
        if self.is_large() {
            self.bytes = BytesMut::new();
            self.allocated_bytes = 0;
            self.next_bytes = SMALLEST;
        }
    }

    /// Takes all complete packets as one slice, and the error of what follows them.
    pub(crate) fn take_complete(&mut self) -> (Bytes, Option<DecodeError>) {
        let (mut at, mut error) = (0, None);
        self.expected_bytes = 0;
        loop {
            match frame(self.bytes.get(at..).unwrap_or_default(), self.max_packet_bytes) {
                Ok(Frame::Complete { total, .. }) => at += total,
                Ok(Frame::Partial { total }) => {
                    self.expected_bytes = total.unwrap_or(0);
                    break;
                }
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
        (self.bytes.split_to(at).freeze(), error)
    }

    /// Takes the first packet, if it is complete: bytes and length of its fixed header.
    pub(crate) fn take_first(&mut self) -> Result<Option<(Bytes, usize)>, DecodeError> {
        match frame(&self.bytes, self.max_packet_bytes)? {
            Frame::Complete { header, total } => {
                self.expected_bytes = 0;
                Ok(Some((self.bytes.split_to(total).freeze(), header)))
            }
            Frame::Partial { total } => {
                self.expected_bytes = total.unwrap_or(0);
                Ok(None)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    fn fill(buffer: &mut ReadBuffer, mut data: &[u8]) -> Vec<Bytes> {
        let mut taken = Vec::new();
        let mut cx = Context::from_waker(noop_waker_ref());
        while !data.is_empty() {
            let Poll::Ready(Ok(_)) = buffer.poll_fill(&mut data, &mut cx) else {
                panic!("a slice is always ready")
            };
            let (complete, error) = buffer.take_complete();
            assert_eq!(error, None);
            taken.push(complete);
        }
        taken
    }

    fn packet(payload: usize) -> Vec<u8> {
        let mut packet = vec![
            0x30,
            (payload & 0x7F) as u8 | 0x80,
            (payload >> 7 & 0x7F) as u8 | 0x80,
        ];
        packet.extend([(payload >> 14) as u8]);
        packet.extend(std::iter::repeat_n(7, payload));
        packet
    }

    #[test]
    fn packets_come_out_as_they_went_in_whatever_their_sizes() {
        let data = [1, 5_000, 0, 300_000, 127, 70_000]
            .into_iter()
            .flat_map(packet)
            .collect::<Vec<_>>();
        let mut buffer = ReadBuffer::new(1_000_000);
        assert_eq!(fill(&mut buffer, &data).concat(), data);
    }

    #[test]
    fn the_buffer_grows_under_load_and_shrinks_after_it() {
        let mut buffer = ReadBuffer::new(1_000_000);
        fill(&mut buffer, &packet(150).repeat(10_000));
        assert_eq!(buffer.next_bytes, LARGEST);
        for _ in 0..12 {
            drop(fill(&mut buffer, &packet(150)));
        }
        assert!(
            !buffer.is_large(),
            "{} bytes for messages of 150",
            buffer.allocated_bytes
        );
        let kept = (0..200)
            .flat_map(|_| fill(&mut buffer, &packet(150)))
            .collect::<Vec<_>>();
        assert!(
            !buffer.is_large(),
            "{} bytes for messages of 150",
            buffer.allocated_bytes
        );
        drop(kept);
    }

    #[test]
    fn a_large_announced_length_alone_reserves_little() {
        let mut buffer = ReadBuffer::new(100_000_000);
        fill(&mut buffer, &[0x30, 0xFF, 0xFF, 0xFF, 0x20, 0, 1]);
        let mut cx = Context::from_waker(noop_waker_ref());
        let _read = buffer.poll_fill(&mut [0_u8].as_slice(), &mut cx);
        assert!(
            buffer.capacity() <= 4 * SMALLEST,
            "{} bytes reserved",
            buffer.capacity()
        );
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_by_its_header_and_those_before_it_are_taken() {
        let mut buffer = ReadBuffer::new(100);
        let mut cx = Context::from_waker(noop_waker_ref());
        let data = [packet(10), packet(97)[..4].to_vec()].concat();
        let Poll::Ready(Ok(_)) = buffer.poll_fill(&mut data.as_slice(), &mut cx) else {
            panic!()
        };
        let (complete, error) = buffer.take_complete();
        assert_eq!(complete.len(), 14);
        assert_eq!(
            error.map(|error| error.reason),
            Some(crate::codec::reason::PACKET_TOO_LARGE)
        );
    }
}
