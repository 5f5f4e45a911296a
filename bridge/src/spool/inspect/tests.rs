//! What an operator sees of a spool: whole, live, damaged.

use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::spool::format::SEGMENT_HEADER_BYTES;
use crate::spool::{Cause, Entry, Spool, SpoolConfig};

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

fn entry(number: u64) -> Entry {
    Entry {
        meta: Bytes::from(format!("meta {number}")),
        payload: format!("{{\"number\":{number}}}").repeat(10).into(),
    }
}

async fn append(spool: &Spool, numbers: Range<u64>) {
    for number in numbers {
        let (sender, stored) = oneshot::channel();
        spool
            .append(
                vec![entry(number)],
                Box::new(move |outcome| sender.send(outcome).unwrap()),
            )
            .unwrap();
        stored.await.unwrap().unwrap();
    }
}

/// Entries 1 to 399 in several segments; the sink `kafka` has confirmed 1 to 9.
async fn fill(dir: &Path) -> Spool {
    let spool = Spool::open(dir, "line-1", small()).unwrap();
    let cursor = spool.cursor("kafka").unwrap();
    append(&spool, 1..400).await;
    cursor.advance(10);
    spool
}

fn sequences(inspection: &Inspection, from: u64) -> Vec<u64> {
    let mut walk = inspection.walk(from);
    let mut sequences = Vec::new();
    while let Some(step) = walk.step().unwrap() {
        match step {
            Step::Records(records) => sequences.extend(records.iter().map(|stored| stored.sequence)),
            Step::Lost { .. } => panic!("{step:?}"),
        }
    }
    sequences
}

fn problems(inspection: &Inspection) -> (Verified, Vec<Problem>) {
    let mut problems = Vec::new();
    let verified = inspection
        .verify(&mut |problem| {
            problems.push(problem.clone());
            Ok(())
        })
        .unwrap();
    assert_eq!(verified.problems, problems.len());
    (verified, problems)
}

#[tokio::test]
async fn a_live_spool_is_read_whole_and_nothing_in_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let spool = fill(dir.path()).await;
    let inspection = Inspection::open(dir.path()).unwrap();
    assert_eq!(inspection.holder(), Some(std::process::id()));
    assert_eq!(inspection.gateway_id(), Some("line-1"));
    assert!(inspection.segments().len() > 2, "{:?}", inspection.segments());
    assert_eq!(
        (inspection.first_sequence(), inspection.next_sequence()),
        (1, 400)
    );
    assert_eq!(sequences(&inspection, 0), (1..400).collect::<Vec<_>>());
    assert_eq!(sequences(&inspection, 395), (395..400).collect::<Vec<_>>());
    let (verified, found) = problems(&inspection);
    assert_eq!((verified.records, found), (399, vec![]));
    assert_eq!(inspection.bytes_from(1).unwrap(), verified.bytes);
    assert_eq!(inspection.bytes_from(400).unwrap(), 0);
    assert_eq!(inspection.bytes(), spool.status().bytes);

    // It goes on as if nobody had looked.
    append(&spool, 400..410).await;
    assert_eq!(
        Inspection::open(dir.path()).unwrap().next_sequence(),
        410,
        "what came since is seen by the next look"
    );
    spool.close().await.unwrap();
    let closed = Inspection::open(dir.path()).unwrap();
    assert_eq!(closed.holder(), None);
    assert_eq!(sequences(&closed, 0), (1..410).collect::<Vec<_>>());
    assert_eq!(closed.cursors()[0].position, Some(10));
}

#[tokio::test]
async fn a_follower_sees_every_record_over_all_segments_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), "line-1", small()).unwrap();
    spool.cursor("kafka").unwrap();
    append(&spool, 1..5).await;
    let mut follow = Inspection::open(dir.path()).unwrap().follow(3);
    let mut seen = Vec::new();
    for first in (5..400).step_by(30) {
        append(&spool, first..first + 30).await;
        loop {
            let records = follow.poll().unwrap();
            if records.is_empty() {
                break;
            }
            seen.extend(records.iter().map(|stored| stored.sequence));
        }
        assert_eq!(follow.position(), first + 30);
    }
    assert_eq!(seen, (3..425).collect::<Vec<_>>());
    spool.close().await.unwrap();
}

#[tokio::test]
async fn segments_that_are_delivered_during_a_walk_are_not_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let spool = fill(dir.path()).await;
    let inspection = Inspection::open(dir.path()).unwrap();
    let cursor = spool.cursor("kafka").unwrap();
    cursor.advance(400);
    // Until the old segments' files are used for new ones.
    append(&spool, 400..900).await;
    while Inspection::open(dir.path()).unwrap().first_sequence() < 300 {
        tokio::task::yield_now().await;
    }
    let (_, found) = problems(&inspection);
    assert_eq!(found, vec![]);
    spool.close().await.unwrap();
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[tokio::test]
async fn every_kind_of_damage_is_told_with_its_file_and_its_sequences() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await.close().await.unwrap();
    let inspection = Inspection::open(dir.path()).unwrap();
    let [first, second, third, fourth, ..] = inspection.segments() else {
        panic!("{inspection:?}")
    };
    flip(&dir.path().join(&first.name), 6_000);
    // Both copies of the second header, one of the third's.
    flip(&dir.path().join(&second.name), 20);
    flip(&dir.path().join(&second.name), 2_048 + 20);
    flip(&dir.path().join(&third.name), 20);
    std::fs::remove_file(dir.path().join(&fourth.name)).unwrap();
    std::fs::write(dir.path().join("cursor-api"), [0; 5_000]).unwrap();

    let (verified, found) = problems(&Inspection::open(dir.path()).unwrap());
    let told: Vec<(&str, &str)> = found
        .iter()
        .map(|problem| (problem.file.as_str(), problem.fault.kind()))
        .collect();
    assert_eq!(
        told,
        [
            (second.name.as_str(), "header_lost"),
            (third.name.as_str(), "header_copy_damaged"),
            ("cursor-api", "cursor_lost"),
            (first.name.as_str(), "corrupt"),
            (second.name.as_str(), "corrupt"),
            ("", "removed"),
        ],
        "{found:#?}"
    );
    let lost = &found[3];
    let (offsets, sequences) = (lost.offsets.clone().unwrap(), lost.sequences.clone().unwrap());
    assert!(
        offsets.contains(&6_000) && sequences.end - sequences.start == 1,
        "{lost:?}"
    );
    assert_eq!(found[5].sequences, Some(fourth.sequences.clone()));
    let whole = 399
        - 1
        - (second.sequences.end - second.sequences.start)
        - (fourth.sequences.end - fourth.sequences.start);
    assert_eq!(verified.records, whole);
}

#[test]
fn what_is_no_spool_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = Inspection::open(&dir.path().join("nothing")).unwrap_err();
    assert!(matches!(nothing, InspectError::NoDirectory { .. }), "{nothing}");
    let empty = Inspection::open(dir.path()).unwrap_err();
    assert!(matches!(empty, InspectError::NoSpool { .. }), "{empty}");
}

/// A closed spool of three segments, as bytes.
fn pristine() -> &'static [(String, Vec<u8>)] {
    static FILES: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let spool = Spool::open(dir.path(), "line-1", small()).unwrap();
            spool.cursor("kafka").unwrap();
            append(&spool, 1..250).await;
            spool.close().await.unwrap();
        });
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        });
        files.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn one_flipped_bit_of_a_record_costs_that_record_and_is_told(
        segment in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in pristine() {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let before = Inspection::open(dir.path()).unwrap();
        prop_assert_eq!(problems(&before).1, vec![]);
        let segment = segment.get(before.segments()).clone();
        let end = segment.end_offset.unwrap();
        let offset = SEGMENT_HEADER_BYTES + at.index(usize::try_from(end - SEGMENT_HEADER_BYTES).unwrap()) as u64;
        let path = dir.path().join(&segment.name);
        let mut content = std::fs::read(&path).unwrap();
        content[usize::try_from(offset).unwrap()] ^= 1 << bit;
        std::fs::write(&path, content).unwrap();

        let (verified, found) = problems(&Inspection::open(dir.path()).unwrap());
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        let lost = found[0].sequences.clone().unwrap();
        prop_assert_eq!(&found[0].fault, &Fault::Lost(Cause::Corrupt));
        prop_assert_eq!(&found[0].file, &segment.name);
        prop_assert!(found[0].offsets.clone().unwrap().contains(&offset));
        prop_assert_eq!(lost.end - lost.start, 1);
        prop_assert_eq!(verified.records, 249 - 1);
    }

    #[test]
    fn whatever_bytes_stand_in_the_files_a_look_ends_without_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut files = pristine().to_vec();
        for (file, at, byte) in damage {
            let index = file.index(files.len());
            let content = &mut files[index].1;
            if !content.is_empty() {
                let at = at.index(content.len());
                content[at] = byte;
            }
        }
        let index = cut.index(files.len());
        let len = cut.index(files[index].1.len() + 1);
        files[index].1.truncate(len);
        for (name, content) in &files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let inspection = Inspection::open(dir.path()).unwrap();
        let _told = problems(&inspection);
        let _followed = inspection.follow(0).poll().unwrap();
        inspection.bytes_from(0).unwrap();
    }
}
