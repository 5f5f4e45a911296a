//! The handles, with threads, on a real file system.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::spool::{Entry, Reader, Refused, Spool, SpoolConfig, SpoolError, Stored};

fn small() -> SpoolConfig {
    SpoolConfig {
        max_bytes: 1 << 20,
        min_free_disk_bytes: 0,
        segment_max_bytes: 20 * 1024,
        commit_max_bytes: 4 * 1024,
        hot_max_bytes: 0,
        cursor_save_interval_ms: 5,
        ..SpoolConfig::default()
    }
}

fn open(dir: &Path, config: SpoolConfig) -> Spool {
    Spool::open(dir, "line-1", config).unwrap()
}

fn entry(number: u64) -> Entry {
    let payload = format!("{{\"number\":{number}}}").repeat(10);
    Entry {
        meta: Bytes::from(format!("meta {number}")),
        payload: payload.into(),
    }
}

async fn append(spool: &Spool, numbers: Range<u64>) -> Result<Range<u64>, SpoolError> {
    let mut entries: Vec<Entry> = numbers.map(entry).collect();
    loop {
        let (sender, receiver) = oneshot::channel();
        match spool.append(entries, Box::new(move |stored| drop(sender.send(stored)))) {
            Ok(()) => return receiver.await.unwrap(),
            Err(Refused::Busy(back, _)) => {
                entries = back;
                spool.room().await;
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

async fn read(reader: &mut Reader, count: usize) -> Vec<Stored> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(reader.next(count - all.len(), usize::MAX).await.unwrap());
    }
    all
}

/// Entry `n` was appended as sequence `n`.
fn assert_numbered(stored: &[Stored], sequences: Range<u64>) {
    assert_eq!(
        stored.iter().map(|stored| stored.sequence).collect::<Vec<_>>(),
        sequences.collect::<Vec<_>>()
    );
    for stored in stored {
        let entry = entry(stored.sequence);
        assert_eq!((&stored.meta, &stored.payload), (&entry.meta, &entry.payload));
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_read_in_order_over_many_segments() {
    for hot_max_bytes in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(
            dir.path(),
            SpoolConfig {
                hot_max_bytes,
                ..small()
            },
        );
        let mut reader = spool.reader_at(1);
        for first in (1..501).step_by(10) {
            assert_eq!(
                append(&spool, first..first + 10).await.unwrap(),
                first..first + 10
            );
        }
        assert!(spool.status().segments > 3, "{:?}", spool.status());
        assert_numbered(&read(&mut reader, 500).await, 1..501);
        spool.close().await.unwrap();
    }
}
