//! How far one sink has confirmed, as the sink holds it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cursor_file::CursorState;
use super::shared::Shared;

/// The place of one sink. Clones share it.
#[derive(Debug, Clone)]
pub struct Cursor {
    pub(super) state: Arc<CursorState>,
    pub(super) shared: Arc<Shared>,
}

impl Cursor {
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The next sequence to deliver.
    pub fn position(&self) -> u64 {
        self.state.position.load(Ordering::Acquire)
    }

    /// The position that a crash now would come back with, at least.
    pub fn saved_position(&self) -> u64 {
        self.state.saved.load(Ordering::Acquire)
    }

    /// Everything before `to` is confirmed. On disk within `cursor_save_interval_ms`. Never moves back, nor past
    /// what is durable.
    pub fn advance(&self, to: u64) {
        let to = to.min(self.shared.durable.borrow().end_sequence);
        self.state.position.fetch_max(to, Ordering::AcqRel);
        if self.shared.queue.held().is_some() {
            self.shared.wake_keeper();
        }
    }
}
