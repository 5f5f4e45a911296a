//! What a stream's client has not read yet, bounded in bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What a small message costs beside its bytes.
const ITEM_BYTES: usize = 128;

/// What a stream tells its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivery {
    Message {
        topic: String,
        payload: Bytes,
    },
    /// A broker's connection broke: until `Resumed`, its messages are missing.
    Interrupted,
    Resumed,
    /// The client was too slow; the stream ends.
    Overflow,
}

impl Delivery {
    fn bytes(&self) -> usize {
        match self {
            Self::Message { topic, payload } => topic.len() + payload.len(),
            _ => 0,
        }
    }
}

/// The end that brokers' messages come in at.
#[derive(Debug, Clone)]
pub(super) struct BufferIn {
    sender: mpsc::UnboundedSender<Item>,
    free_bytes: Arc<Semaphore>,
}

/// The stream's end.
#[derive(Debug)]
pub(super) struct BufferOut(mpsc::UnboundedReceiver<Item>);

/// A delivery, and its share of the buffer, which comes free when the stream takes it.
type Item = (Delivery, Option<OwnedSemaphorePermit>);

/// The stream has ended: its client is gone, or was too slow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended;

pub(super) fn buffer(max_bytes: u32) -> (BufferIn, BufferOut) {
    // Bounded by the permits: each item but the last one holds some.
    let (sender, receiver) = mpsc::unbounded_channel();
    let free_bytes = Arc::new(Semaphore::new(max_bytes as usize));
    (BufferIn { sender, free_bytes }, BufferOut(receiver))
}

impl BufferIn {
    /// Where there is no room, [`Delivery::Overflow`] is the stream's last item.
    pub(super) fn push(&self, delivery: Delivery) -> Result<(), Ended> {
        let bytes = u32::try_from(delivery.bytes() + ITEM_BYTES).unwrap_or(u32::MAX);
        match Arc::clone(&self.free_bytes).try_acquire_many_owned(bytes) {
            Ok(share) => self.sender.send((delivery, Some(share))).map_err(|_| Ended),
            Err(_) if self.free_bytes.is_closed() => Err(Ended),
            Err(_) => {
                self.free_bytes.close();
                let _gone = self.sender.send((Delivery::Overflow, None));
                Err(Ended)
            }
        }
    }
}

impl BufferOut {
    /// `None` when no broker is followed any more.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        self.0.recv().await.map(|(delivery, _share)| delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Delivery {
        Delivery::Message {
            topic: String::new(),
            payload: vec![b'x'; len].into(),
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_has_room_again_and_one_that_does_not_is_told_last() {
        let (into, mut out) = buffer(3 * (ITEM_BYTES as u32 + 100));
        for _ in 0..10 {
            assert_eq!(into.push(message(100)), Ok(()));
            assert_eq!(out.next().await, Some(message(100)));
        }
        for _ in 0..3 {
            assert_eq!(into.push(message(100)), Ok(()));
        }
        assert_eq!(into.push(message(100)), Err(Ended));
        for _ in 0..3 {
            assert_eq!(out.next().await, Some(message(100)));
        }
        assert_eq!(into.push(message(1)), Err(Ended), "nothing comes after the last");
        assert_eq!(out.next().await, Some(Delivery::Overflow));
    }
}
