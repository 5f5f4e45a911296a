//! How fast entries become durable: closed loops of callers that append a batch, wait until it is on disk, and append
//! the next. One element is one entry of 150 B payload and 60 B meta; bytes are those of both.
//!
//! The disk is the one under the temporary directory (`TMPDIR`).

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that fails must say so"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shopfloor_bridge::spool::{Cursor, Entry, Refused, Spool, SpoolConfig};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const PAYLOAD_BYTES: usize = 150;
const META_BYTES: usize = 60;

fn config() -> SpoolConfig {
    SpoolConfig {
        max_bytes: 1 << 30,
        min_free_disk_bytes: 0,
        ..SpoolConfig::default()
    }
}

/// Slices of one read buffer, as a connection hands them over.
fn batch(entries: usize) -> Vec<Entry> {
    let buffer = Bytes::from(vec![b'x'; entries * (PAYLOAD_BYTES + META_BYTES)]);
    (0..entries)
        .map(|index| {
            let at = index * (PAYLOAD_BYTES + META_BYTES);
            let payload_at = at + META_BYTES;
            Entry {
                meta: buffer.slice(at..payload_at),
                payload: buffer.slice(payload_at..payload_at + PAYLOAD_BYTES),
            }
        })
        .collect()
}

async fn append(spool: &Spool, mut entries: Vec<Entry>) {
    loop {
        let (sender, receiver) = oneshot::channel();
        match spool.append(entries, Box::new(move |stored| drop(sender.send(stored)))) {
            Ok(()) => {
                receiver.await.expect("answered").expect("stored");
                return;
            }
            Err(Refused::Busy(back, _)) => {
                entries = back;
                spool.room().await;
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
}

/// Each caller appends `rounds` batches; what is durable counts as delivered, so that segments are recycled.
async fn callers(spool: &Spool, cursor: &Cursor, callers: usize, entries: usize, rounds: u64) -> Duration {
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (spool, cursor) = (spool.clone(), cursor.clone());
            tokio::spawn(async move {
                for _ in 0..rounds {
                    append(&spool, batch(entries)).await;
                    cursor.advance(u64::MAX);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("caller");
    }
    began.elapsed()
}

/// As [`callers`], while a reader takes every entry.
async fn callers_and_reader(
    spool: &Spool,
    cursor: &Cursor,
    count: usize,
    entries: usize,
    rounds: u64,
) -> Duration {
    let began = Instant::now();
    let mut reader = spool.reader(cursor);
    let last = reader.position() + count as u64 * entries as u64 * rounds;
    let cursor = cursor.clone();
    let reading = tokio::spawn(async move {
        while reader.position() < last {
            let stored = reader.next(1000, 1 << 20).await.expect("read");
            assert_eq!(
                stored.iter().map(|stored| stored.payload.len()).min(),
                Some(PAYLOAD_BYTES)
            );
            cursor.advance(reader.position());
        }
    });
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for _ in 0..rounds {
                    append(&spool, batch(entries)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("caller");
    }
    reading.await.expect("reader");
    began.elapsed()
}

fn throughput(entries: usize) -> Throughput {
    let bytes = entries * (PAYLOAD_BYTES + META_BYTES);
    Throughput::ElementsAndBytes {
        elements: entries as u64,
        bytes: bytes as u64,
    }
}

fn append_durably(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let mut group = criterion.benchmark_group("spool/append");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1));
    for count in [1, 100] {
        for entries in [1, 10, 50, 500] {
            let dir = tempfile::tempdir().expect("directory");
            let spool = Spool::open(dir.path(), "bench", config()).expect("spool");
            let cursor = spool.cursor("bench").expect("cursor");
            group.throughput(throughput(count * entries));
            group.bench_function(
                BenchmarkId::new(format!("{count} callers"), format!("batch {entries}")),
                |bencher| {
                    bencher.iter_custom(|rounds| {
                        runtime.block_on(callers(&spool, &cursor, count, entries, rounds))
                    });
                },
            );
            runtime.block_on(spool.close()).expect("closed");
        }
    }
    group.finish();
}

fn append_and_read(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let mut group = criterion.benchmark_group("spool/append_and_read");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1));
    for (name, hot_max_bytes) in [("from memory", config().hot_max_bytes), ("from disk", 0)] {
        let (count, entries) = (100, 50);
        let dir = tempfile::tempdir().expect("directory");
        let spool = Spool::open(
            dir.path(),
            "bench",
            SpoolConfig {
                hot_max_bytes,
                ..config()
            },
        )
        .expect("spool");
        let cursor = spool.cursor("bench").expect("cursor");
        group.throughput(throughput(count * entries));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(callers_and_reader(&spool, &cursor, count, entries, rounds))
            });
        });
        runtime.block_on(spool.close()).expect("closed");
    }
    group.finish();
}

criterion_group!(benches, append_durably, append_and_read);
criterion_main!(benches);
