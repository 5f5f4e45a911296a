//! What the fuzz targets need of the records; with the feature `fuzzing` alone.

use super::records::{DeliveryRecord, MessageRecord, SessionRecord, SubscriptionRecord};
use crate::session_parts::Subscribed;

const KEY: u64 = 1;

/// Reads a value of one of four tables. What it was understood as is written and understood as the same again.
pub(crate) fn record_comes_back(kind: u8, bytes: &[u8]) {
    match kind % 4 {
        0 => {
            let written = |record: SessionRecord| SessionRecord::from(&record.into_session(KEY));
            if let Ok(record) = SessionRecord::read(bytes) {
                let first = written(record);
                assert_eq!(written(first.clone()), first);
            }
        }
        1 => {
            let written = |record: MessageRecord| Some(MessageRecord::from(&record.into_message().ok()?));
            if let Some(first) = MessageRecord::read(bytes).ok().and_then(written) {
                assert_eq!(written(first.clone()), Some(first));
            }
        }
        2 => {
            let written = |record: DeliveryRecord| Some(DeliveryRecord::from(&record.into_delivery(1).ok()?));
            if let Some(first) = DeliveryRecord::read(bytes).ok().and_then(written) {
                assert_eq!(written(first.clone()), Some(first));
            }
        }
        _ => {
            let written = |record: SubscriptionRecord| SubscriptionRecord::from(&Subscribed::from(record));
            if let Ok(record) = SubscriptionRecord::read(bytes) {
                let first = written(record);
                assert_eq!(written(first.clone()), first);
            }
        }
    }
}
