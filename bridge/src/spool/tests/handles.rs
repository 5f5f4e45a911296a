//! The handles, with threads, on a real file system.

use std::ops::Range;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::spool::{Cause, Entry, Hold, ReadError, Reader, Refused, Spool, SpoolConfig, SpoolError, Stored};

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

#[tokio::test]
async fn a_restart_goes_on_with_the_next_sequence_and_each_cursor_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    let kafka = spool.cursor("kafka").unwrap();
    let api = spool.cursor("api").unwrap();
    for first in [1, 11, 21, 31, 41] {
        append(&spool, first..first + 10).await.unwrap();
    }
    kafka.advance(41);
    api.advance(7);
    api.advance(3);
    spool.close().await.unwrap();

    let spool = open(dir.path(), small());
    assert_eq!(spool.recovery().next_sequence, 51);
    assert_eq!(spool.recovery().damaged, vec![]);
    let (kafka, api) = (spool.cursor("kafka").unwrap(), spool.cursor("api").unwrap());
    assert_eq!((kafka.position(), api.position()), (41, 7));
    assert_eq!(append(&spool, 51..53).await.unwrap(), 51..53);
    assert_numbered(&read(&mut spool.reader(&kafka), 12).await, 41..53);
    assert_numbered(&read(&mut spool.reader(&api), 46).await, 7..53);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn two_gateways_never_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    let second = Spool::open(dir.path(), "line-1", small());
    assert!(matches!(second, Err(SpoolError::Locked { .. })), "{second:?}");
    append(&spool, 1..2).await.unwrap();
    spool.close().await.unwrap();

    let other = Spool::open(dir.path(), "line-2", small());
    let Err(SpoolError::OtherGateway { found, expected, .. }) = other else {
        panic!("{other:?}")
    };
    assert_eq!((found.as_str(), expected.as_str()), ("line-1", "line-2"));
    open(dir.path(), small()).close().await.unwrap();
}

#[tokio::test]
async fn names_that_could_leave_the_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    for name in ["", "../x", "a/b", "x.tmp", &"n".repeat(65)] {
        assert!(
            matches!(spool.cursor(name), Err(SpoolError::Name { .. })),
            "{name:?}"
        );
        assert!(
            matches!(
                Spool::open(dir.path(), name, small()),
                Err(SpoolError::Name { .. })
            ),
            "{name:?}"
        );
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_full_spool_is_busy_until_every_cursor_has_moved_and_then_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(
        dir.path(),
        SpoolConfig {
            max_bytes: 60 * 1024,
            ..small()
        },
    );
    let (kafka, api) = (spool.cursor("kafka").unwrap(), spool.cursor("api").unwrap());
    let mut appended = 0;
    // Appends one after the other, until one is not answered.
    let waiting = loop {
        let next = tokio::spawn({
            let spool = spool.clone();
            async move { append(&spool, appended + 1..appended + 11).await }
        });
        while !next.is_finished() && spool.status().held.is_none() {
            tokio::task::yield_now().await;
        }
        appended += 10;
        if spool.status().held.is_some() {
            break next;
        }
        next.await.unwrap().unwrap();
    };
    assert_eq!(spool.status().held, Some(Hold::MaxBytes));
    assert!(spool.status().bytes <= 60 * 1024);
    let refused = spool.append(vec![entry(0)], Box::new(|_| {})).unwrap_err();
    assert_eq!(refused.kind(), "busy");

    kafka.advance(appended);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), spool.room())
            .await
            .is_err(),
        "api has not moved"
    );
    api.advance(appended);
    spool.room().await;
    waiting.await.unwrap().unwrap();
    append(&spool, appended + 1..appended + 11).await.unwrap();
    assert_eq!(spool.status().held, None);
    let stored = read(&mut spool.reader(&api), 20).await;
    assert_numbered(&stored, appended - 9..appended + 11);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn segments_go_when_all_cursors_have_passed_them_and_their_files_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    let (kafka, api) = (spool.cursor("kafka").unwrap(), spool.cursor("api").unwrap());
    for first in (1..1001).step_by(10) {
        append(&spool, first..first + 10).await.unwrap();
        if first == 501 {
            kafka.advance(501);
            api.advance(301);
            while spool.status().spares == 0 {
                tokio::task::yield_now().await;
            }
            let status = spool.status();
            assert!(
                status.first_sequence > 100 && status.first_sequence <= 301,
                "{status:?}"
            );
        }
    }
    let mut reader = spool.reader(&api);
    assert_numbered(&read(&mut reader, 700).await, 301..1001);
    assert_eq!(spool.status().spares, 0);

    spool.forget_cursor("api").unwrap();
    kafka.advance(1001);
    while spool.status().segments > 1 {
        tokio::task::yield_now().await;
    }
    let lost = spool.reader_at(1).next(1, 1).await.unwrap_err();
    let ReadError::Lost {
        sequences,
        cause: Cause::Removed,
    } = lost
    else {
        panic!("{lost:?}")
    };
    assert_eq!(sequences, 1..spool.status().first_sequence);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn closing_stores_what_was_accepted_and_refuses_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    let mut answers = Vec::new();
    for number in 1..101 {
        let (sender, receiver) = oneshot::channel();
        spool
            .append(
                vec![entry(number)],
                Box::new(move |stored| drop(sender.send(stored))),
            )
            .unwrap();
        answers.push(receiver);
    }
    let mut reader = spool.reader_at(1);
    spool.close().await.unwrap();
    for (answer, number) in answers.into_iter().zip(1..) {
        assert_eq!(answer.await.unwrap().unwrap(), number..number + 1);
    }
    let refused = spool.append(vec![entry(0)], Box::new(|_| {})).unwrap_err();
    assert_eq!(refused.kind(), "closed");
    spool.room().await;
    assert_numbered(&read(&mut reader, 100).await, 1..101);
    assert!(matches!(reader.next(1, 1).await, Err(ReadError::Closed)));
}

#[tokio::test]
async fn closing_a_full_spool_answers_what_waits_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(
        dir.path(),
        SpoolConfig {
            min_free_disk_bytes: 1 << 60,
            ..small()
        },
    );
    let waiting = tokio::spawn({
        let spool = spool.clone();
        async move { append(&spool, 1..2).await }
    });
    while spool.status().held.is_none() {
        tokio::task::yield_now().await;
    }
    spool.close().await.unwrap();
    let answer = waiting.await.unwrap();
    assert!(
        matches!(answer, Err(SpoolError::Held(Hold::MinFreeDisk))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_append_larger_than_a_commit_is_handed_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    let entries = vec![Entry {
        meta: Bytes::new(),
        payload: vec![7; 5000].into(),
    }];
    let refused = spool.append(entries.clone(), Box::new(|_| {})).unwrap_err();
    assert_eq!(refused.kind(), "too_large");
    assert_eq!(refused.into_parts().0, entries);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn an_append_of_nothing_is_answered_with_no_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    assert_eq!(append(&spool, 1..4).await.unwrap(), 1..4);
    assert_eq!(append(&spool, 0..0).await.unwrap(), 4..4);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_panics_takes_nothing_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    spool
        .append(vec![entry(1)], Box::new(|_| panic!("on purpose")))
        .unwrap();
    assert_eq!(append(&spool, 2..3).await.unwrap(), 2..3);
    assert_numbered(&read(&mut spool.reader_at(1), 2).await, 1..3);
    spool.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_each_find_their_entries_together_and_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(
        dir.path(),
        SpoolConfig {
            max_bytes: 1 << 30,
            hot_max_bytes: 1 << 20,
            ..small()
        },
    );
    let callers: Vec<_> = (0..20u64)
        .map(|caller| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for call in 0..20 {
                    let number = caller * 1000 + call * 10;
                    taken.push(append(&spool, number..number + 10).await.unwrap());
                }
                assert!(taken.is_sorted_by_key(|sequences| sequences.start));
                (caller, taken)
            })
        })
        .collect();
    let stored = read(&mut spool.reader_at(1), 4000).await;
    for caller in callers {
        let (caller, taken) = caller.await.unwrap();
        for (sequences, call) in taken.into_iter().zip(0..) {
            for (sequence, index) in sequences.zip(0..) {
                let entry = entry(caller * 1000 + call * 10 + index);
                assert_eq!(stored[sequence as usize - 1].payload, entry.payload);
            }
        }
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_dropped_while_it_waits_has_taken_nothing() {
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
        for number in 1..30 {
            assert!(
                futures_util::poll!(std::pin::pin!(reader.next(5, 500))).is_pending(),
                "nothing is there yet"
            );
            append(&spool, number..number + 1).await.unwrap();
            // From disk the first poll only starts the read; it is dropped with the read under way.
            let polled = futures_util::poll!(std::pin::pin!(reader.next(5, 500)));
            if let Poll::Ready(stored) = polled {
                assert_numbered(&stored.unwrap(), number..number + 1);
            } else {
                assert_numbered(&read(&mut reader, 1).await, number..number + 1);
            }
        }
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_gives_no_more_than_asked_but_always_one() {
    for hot_max_bytes in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(
            dir.path(),
            SpoolConfig {
                hot_max_bytes,
                ..small()
            },
        );
        append(&spool, 1..10).await.unwrap();
        append(&spool, 10..20).await.unwrap();
        let each = entry(1).meta.len() + entry(1).payload.len();
        let mut reader = spool.reader_at(1);
        assert_numbered(&reader.next(3, usize::MAX).await.unwrap(), 1..4);
        assert_numbered(&reader.next(usize::MAX, 2 * each).await.unwrap(), 4..6);
        assert_numbered(&reader.next(usize::MAX, 0).await.unwrap(), 6..7);
        assert_numbered(&reader.next(0, usize::MAX).await.unwrap(), 7..8);
        assert_numbered(&read(&mut reader, 12).await, 8..20);
        reader.seek(2);
        assert_numbered(&reader.next(1, usize::MAX).await.unwrap(), 2..3);
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn large_payloads_come_back_from_memory_and_from_disk() {
    for hot_max_bytes in [0, 64 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            hot_max_bytes,
            min_free_disk_bytes: 0,
            ..SpoolConfig::default()
        };
        let spool = open(dir.path(), config);
        let sizes = [0, 1, 16 << 10, (16 << 10) - 1, 3 << 20, 150, 1 << 20];
        let entries: Vec<Entry> = sizes
            .iter()
            .map(|size| Entry {
                meta: Bytes::from_static(b"m"),
                payload: vec![*size as u8; *size].into(),
            })
            .collect();
        for entry in &entries {
            let (sender, receiver) = oneshot::channel();
            spool
                .append(
                    vec![entry.clone()],
                    Box::new(move |stored| drop(sender.send(stored))),
                )
                .unwrap();
            receiver.await.unwrap().unwrap();
        }
        let stored = read(&mut spool.reader_at(1), entries.len()).await;
        for (stored, entry) in stored.iter().zip(&entries) {
            assert!(
                stored.payload == entry.payload && stored.meta == entry.meta,
                "{}",
                entry.payload.len()
            );
        }
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_after_a_crash_reads_a_page_of_each_segment_and_the_last_few_commits() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), small());
    for first in (1..1001).step_by(10) {
        append(&spool, first..first + 10).await.unwrap();
    }
    // What a killed process leaves is what is there now.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
    }
    spool.close().await.unwrap();

    let spool = open(crashed.path(), small());
    let recovery = spool.recovery();
    assert_eq!((recovery.next_sequence, &recovery.torn), (1001, &None));
    let most = recovery.segments as u64 * 4096 + 3 * 4096;
    assert!(
        recovery.segments > 10 && recovery.read_bytes <= most,
        "{recovery:?}"
    );
    assert_numbered(&read(&mut spool.reader_at(1), 1000).await, 1..1001);
    spool.close().await.unwrap();
}
