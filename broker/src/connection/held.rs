//! Packets that may go only when a change of the session is durable.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;

use crate::persistence::{NotDurable, Wait};

/// What the change itself may occupy until the disk has it: small packets stand for it.
const CHANGE_BYTES: usize = 256;

/// In the order in which they go.
#[derive(Debug, Default)]
pub(crate) struct Held {
    packets: VecDeque<(Wait, BytesMut)>,
    bytes: usize,
}

impl Held {
    pub(crate) fn hold(&mut self, wait: Wait, packet: BytesMut) {
        self.bytes += packet.len() + CHANGE_BYTES;
        self.packets.push_back((wait, packet));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves what may go to `out`. Ready when something was moved.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<Result<(), NotDurable>> {
        let mut moved = false;
        while let Some((wait, packet)) = self.packets.front_mut() {
            match Pin::new(wait).poll(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(NotDurable)) => return Poll::Ready(Err(NotDurable)),
                Poll::Pending => break,
            }
            self.bytes -= packet.len() + CHANGE_BYTES;
            out.extend_from_slice(packet);
            self.packets.pop_front();
            moved = true;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
