//! A store that answers when the test says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use shopfloor_broker::tap::{Batch, Published, Receipt, ReceiptSender, Refused, Tap, Verdict, receipt};
use tokio::sync::Notify;

/// How offers are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Receipts resolve at once.
    AtOnce,
    /// Receipts wait for [`Store::release`] or [`Store::lose`].
    Hold,
    /// There is no room.
    Busy,
    /// The store has stopped.
    Closed,
    /// The test's own fault.
    Panic,
}

#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    room: Notify,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    messages: Vec<Published>,
    held: Vec<(ReceiptSender, Vec<Verdict>)>,
    dead_letter: Option<Arc<str>>,
    unrouted: bool,
    refused: usize,
}

impl Store {
    pub fn new(mode: Mode) -> Arc<Self> {
        let inner = Inner {
            mode,
            messages: Vec::new(),
            held: Vec::new(),
            dead_letter: None,
            unrouted: false,
            refused: 0,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            room: Notify::new(),
            changed: Notify::new(),
        })
    }

    pub fn set_mode(&self, mode: Mode) {
        self.inner.lock().unwrap().mode = mode;
        self.room.notify_waiters();
    }

    /// Every further message goes to the dead letters for this reason.
    pub fn dead_letter(&self, reason: &str) {
        self.inner.lock().unwrap().dead_letter = Some(reason.into());
    }

    /// No route takes further messages.
    pub fn route_nothing(&self) {
        self.inner.lock().unwrap().unrouted = true;
    }

    /// Everything taken so far.
    pub fn messages(&self) -> Vec<Published> {
        self.inner.lock().unwrap().messages.clone()
    }

    pub fn payloads(&self) -> Vec<String> {
        self.messages()
            .iter()
            .map(|m| String::from_utf8_lossy(&m.payload).into_owned())
            .collect()
    }

    /// Times that a batch was refused for want of room.
    pub fn refused(&self) -> usize {
        self.inner.lock().unwrap().refused
    }

    /// Resolves the oldest held receipts, `count` of them.
    pub fn release(&self, count: usize) {
        let released = self.inner.lock().unwrap().held.drain(..count).collect::<Vec<_>>();
        for (sender, verdicts) in released {
            sender.resolve(verdicts);
        }
    }

    /// Resolves the receipt at `index` of those held.
    pub fn release_at(&self, index: usize) {
        let (sender, verdicts) = self.inner.lock().unwrap().held.remove(index);
        sender.resolve(verdicts);
    }

    /// Drops all held receipts: nothing of them was stored.
    pub fn lose(&self) {
        self.inner.lock().unwrap().held.clear();
    }

    pub fn held(&self) -> usize {
        self.inner.lock().unwrap().held.len()
    }

    /// Waits until `done` says so.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        let waited = async {
            loop {
                let changed = self.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if done(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(super::SOON, waited)
            .await
            .expect("the store never saw what the test waits for");
    }
}

impl Tap for Store {
    fn offer(&self, batch: Batch) -> Result<Receipt, Refused> {
        assert!(
            !batch.messages.is_empty() || !batch.released.is_empty(),
            "an empty batch was offered"
        );
        let mut inner = self.inner.lock().unwrap();
        let answer = match inner.mode {
            Mode::Busy => {
                inner.refused += 1;
                Err(Refused::Busy(batch))
            }
            Mode::Panic => {
                drop(inner);
                panic!("the test's own panic")
            }
            Mode::Closed => Err(Refused::Closed(batch)),
            mode => {
                let verdict = match &inner.dead_letter {
                    Some(reason) => Verdict::DeadLettered {
                        reason: Arc::clone(reason),
                    },
                    None if inner.unrouted => Verdict::Unrouted,
                    None => Verdict::Stored,
                };
                let verdicts = vec![verdict; batch.messages.len()];
                inner.messages.extend(batch.messages);
                let (sender, receipt) = receipt();
                if mode == Mode::Hold {
                    inner.held.push((sender, verdicts));
                } else {
                    sender.resolve(verdicts);
                }
                Ok(receipt)
            }
        };
        drop(inner);
        self.changed.notify_waiters();
        answer
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Registered at once: a change between the refusal and the first poll is not missed.
        let mut room = Box::pin(self.room.notified());
        room.as_mut().enable();
        let busy = self.inner.lock().unwrap().mode == Mode::Busy;
        Box::pin(async move {
            if busy {
                room.await;
            }
        })
    }
}
