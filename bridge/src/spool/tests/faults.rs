//! Single faults, by name.

use std::path::{Path, PathBuf};

use super::fake::{FakeFilesystem, Fault};
use super::process::{DIR, Model, Process, read_all};
use crate::spool::catalog::segment_name;
use crate::spool::format::{Found, Progress, RecordHeader, SegmentHeader, record_at, resync};
use crate::spool::writer::Outcome;
use crate::spool::{Cause, Hold, ReadError, SpoolConfig, SpoolError, Stored, Torn};

type Sequences = std::ops::Range<u64>;

fn config() -> SpoolConfig {
    SpoolConfig {
        max_bytes: 1 << 20,
        min_free_disk_bytes: 0,
        segment_max_bytes: 14_000,
        commit_max_bytes: 4_000,
        hot_max_bytes: 0,
        ..SpoolConfig::default()
    }
}

/// A spool with so many commits of so many entries of 100 bytes.
fn filled(disk: &FakeFilesystem, commits: u64, entries: usize) -> (Process, Model) {
    let mut process = Process::start(disk, &config()).unwrap();
    let mut model = Model::default();
    for _ in 0..commits {
        model.append(&process, &vec![100; entries]).unwrap();
        assert!(matches!(process.write(), Some(Outcome::Stored)));
        assert_eq!(model.take_answers(), entries);
    }
    (process, model)
}

fn segment(first_sequence: u64) -> PathBuf {
    Path::new(DIR).join(segment_name(first_sequence))
}

/// Where each record of a segment's content stands.
fn records(content: &[u8]) -> Vec<(usize, RecordHeader)> {
    let salt = SegmentHeader::parse(content).unwrap().salt;
    let mut at = 4096;
    let mut records = Vec::new();
    while let Found::Record { header, bytes } = record_at(&content[at..], salt, &(1..u64::MAX)) {
        records.push((at, header));
        at += bytes;
    }
    records
}

/// Flips a bit in the middle of a record.
fn flip(disk: &FakeFilesystem, first_sequence: u64, sequence: u64) {
    flip_byte(disk, first_sequence, sequence, 60);
}

fn flip_byte(disk: &FakeFilesystem, first_sequence: u64, sequence: u64, byte: usize) {
    disk.rot(&segment(first_sequence), |content| {
        let salt = SegmentHeader::parse(content).unwrap().salt;
        let found = resync(content, 4096, salt, &(sequence..sequence + 1));
        if let Some((at, _)) = found {
            content[at + byte] ^= 0x41;
        }
    });
}

/// What is read: sequences, or the range that is lost and why.
fn summary(read: &[Result<Stored, ReadError>]) -> Vec<Result<Sequences, (Sequences, Cause)>> {
    let mut summary: Vec<Result<Sequences, _>> = Vec::new();
    for read in read {
        match (read, summary.last_mut()) {
            (Ok(stored), Some(Ok(run))) if run.end == stored.sequence => run.end += 1,
            (Ok(stored), _) => summary.push(Ok(stored.sequence..stored.sequence + 1)),
            (Err(ReadError::Lost { sequences, cause }), _) => summary.push(Err((sequences.clone(), *cause))),
            (Err(error), _) => panic!("{error:?}"),
        }
    }
    summary
}

#[tokio::test]
async fn a_flipped_bit_in_a_sealed_segment_costs_one_entry_and_is_reported() {
    let disk = FakeFilesystem::new(1);
    let (process, _) = filled(&disk, 30, 5);
    flip(&disk, 1, 13);
    let read = read_all(&mut process.reader_at(1)).await;
    assert_eq!(
        summary(&read),
        [Ok(1..13), Err((13..14, Cause::Corrupt)), Ok(14..151)]
    );
    // From behind it there is nothing to report.
    assert_eq!(
        summary(&read_all(&mut process.reader_at(14)).await),
        [Ok(14..151)]
    );
}

#[tokio::test]
async fn a_flipped_length_costs_one_entry_too() {
    let disk = FakeFilesystem::new(1);
    let (process, _) = filled(&disk, 30, 5);
    for (sequence, byte) in [(3, 4), (7, 7), (9, 8), (11, 11), (20, 16)] {
        flip_byte(&disk, 1, sequence, byte);
    }
    let lost: Vec<_> = summary(&read_all(&mut process.reader_at(1)).await)
        .into_iter()
        .filter_map(Result::err)
        .collect();
    let expected = [3..4, 7..8, 9..10, 11..12, 20..21];
    assert_eq!(lost, expected.map(|range| (range, Cause::Corrupt)));
}

#[tokio::test]
async fn after_a_crash_damage_is_told_from_a_commit_that_may_never_have_finished() {
    let disk = FakeFilesystem::new(1);
    let (process, _) = filled(&disk, 5, 5);
    assert_eq!(process.end_sequence(), 26);
    flip(&disk, 1, 12);
    flip(&disk, 1, 23);
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    assert_eq!(
        process.shared.recovery.damaged,
        [(12..13, Cause::Corrupt), (23..24, Cause::CorruptOrTorn)]
    );
    let expected = [
        Ok(1..12),
        Err((12..13, Cause::Corrupt)),
        Ok(13..23),
        Err((23..24, Cause::CorruptOrTorn)),
        Ok(24..26),
    ];
    assert_eq!(summary(&read_all(&mut process.reader_at(1)).await), expected);
    // A second restart no longer reads the tail, and still knows.
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    assert_eq!(summary(&read_all(&mut process.reader_at(1)).await), expected);
}

#[tokio::test]
async fn after_a_quiet_moment_even_the_last_entry_cannot_be_taken_for_a_torn_one() {
    let disk = FakeFilesystem::new(1);
    let (mut process, _) = filled(&disk, 2, 5);
    process.writer.prove();
    flip(&disk, 1, 10);
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    assert_eq!(process.shared.recovery.next_sequence, 11);
    let read = summary(&read_all(&mut process.reader_at(1)).await);
    assert_eq!(read, [Ok(1..10), Err((10..11, Cause::Corrupt))]);
}

#[tokio::test]
async fn a_torn_end_is_cut_and_its_sequences_are_given_to_the_next_entries() {
    let disk = FakeFilesystem::new(1);
    let (process, mut model) = filled(&disk, 2, 5);
    // A sixth entry reached the disk in part.
    let header = RecordHeader {
        crc: 1,
        payload_len: 100,
        meta_len: 8,
        commit: 2,
        sequence: 11,
    };
    disk.rot(&segment(1), |content| {
        let (at, last) = *records(content).last().unwrap();
        let end = at + last.record_bytes() as usize;
        content[end..end + 24].copy_from_slice(&header.encode());
    });
    disk.kill();
    drop(process);
    let mut process = Process::start(&disk, &config()).unwrap();
    let torn = Torn {
        segment: segment(1),
        bytes: header.record_bytes(),
    };
    assert_eq!(process.shared.recovery.torn, Some(torn));
    assert_eq!(process.shared.recovery.damaged, vec![]);
    model.append(&process, &[100]).unwrap();
    process.write();
    assert_eq!(model.take_answers(), 1);
    let read = read_all(&mut process.reader_at(1)).await;
    model.check(&read, 1, 12);
}

#[tokio::test]
async fn one_rotten_header_sector_costs_nothing_and_both_cost_the_segment() {
    let disk = FakeFilesystem::new(1);
    let (process, _) = filled(&disk, 30, 5);
    let second = process.shared.first_sequence();
    assert_eq!(second, 1);
    drop(process);
    disk.rot(&segment(1), |content| content[20] ^= 1);
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    assert_eq!(summary(&read_all(&mut process.reader_at(1)).await), [Ok(1..151)]);

    disk.rot(&segment(1), |content| content[2048 + 20] ^= 1);
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    let read = summary(&read_all(&mut process.reader_at(1)).await);
    let [Err((lost, Cause::Corrupt)), Ok(rest)] = &read[..] else {
        panic!("{read:?}")
    };
    assert_eq!((lost.start, rest.start, rest.end), (1, lost.end, 151));
}

#[tokio::test]
async fn a_newest_segment_that_cannot_be_read_keeps_its_sequences_from_being_given_out_again() {
    let disk = FakeFilesystem::new(1);
    let (_, mut model) = filled(&disk, 3, 5);
    disk.rot(&segment(1), |content| content[..4096].fill(0));
    disk.kill();
    let mut process = Process::start(&disk, &config()).unwrap();
    let next_sequence = process.shared.recovery.next_sequence;
    assert_eq!(
        process.shared.recovery.damaged,
        [(1..next_sequence, Cause::Corrupt)]
    );
    model.append(&process, &[100]).unwrap();
    process.write();
    assert_eq!(model.take_answers(), 1);
    let read = summary(&read_all(&mut process.reader_at(1)).await);
    assert_eq!(
        read,
        [
            Err((1..next_sequence, Cause::Corrupt)),
            Ok(next_sequence..next_sequence + 1)
        ]
    );
}

#[tokio::test]
async fn a_segment_that_somebody_removed_is_reported() {
    let disk = FakeFilesystem::new(1);
    let (process, _) = filled(&disk, 60, 5);
    let names = disk.names();
    let victim = &names[1];
    let first = names[1..3].iter().map(|path| {
        crate::spool::catalog::first_sequence_of(path.file_name().unwrap().to_str().unwrap()).unwrap()
    });
    let [start, end] = first.collect::<Vec<_>>()[..] else {
        panic!()
    };
    process.shared.fs.remove(victim).unwrap();
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    assert_eq!(process.shared.recovery.damaged, [(start..end, Cause::Removed)]);
    let read = summary(&read_all(&mut process.reader_at(1)).await);
    assert_eq!(
        read,
        [Ok(1..start), Err((start..end, Cause::Removed)), Ok(end..301)]
    );
}

#[tokio::test]
async fn after_a_failed_fdatasync_the_commit_goes_to_a_new_segment_and_survives_a_power_failure() {
    for seed in 0..50 {
        let disk = FakeFilesystem::new(seed);
        let (mut process, mut model) = filled(&disk, 3, 5);
        model.append(&process, &[100; 5]).unwrap();
        // The write, then the sync.
        disk.fault(1, Fault::Eio);
        assert!(matches!(process.write(), Some(Outcome::Stored)));
        assert_eq!(model.take_answers(), 5);
        assert_eq!(disk.names(), [segment(1), segment(16)]);
        assert_eq!(
            process
                .shared
                .counters
                .failures
                .load(std::sync::atomic::Ordering::Relaxed),
            1
        );
        let read = read_all(&mut process.reader_at(1)).await;
        model.check(&read, 1, 21);
        disk.power_failure();
        let process = Process::start(&disk, &config()).unwrap();
        let read = read_all(&mut process.reader_at(1)).await;
        model.check(&read, 1, 21);
    }
}

#[tokio::test]
async fn a_disk_that_fails_for_good_stops_the_spool_and_every_append_hears_why() {
    let disk = FakeFilesystem::new(1);
    let (mut process, mut model) = filled(&disk, 1, 1);
    model.append(&process, &[100]).unwrap();
    for _ in 0..20 {
        disk.fault(0, Fault::Eio);
    }
    assert!(matches!(process.write(), Some(Outcome::Stopped)));
    process.writer.end();
    assert_eq!(model.take_answers(), 0);
    assert_eq!(
        crate::spool::mutex::lock(&process.shared.fault)
            .as_ref()
            .map(SpoolError::kind),
        Some("io")
    );
    assert_eq!(model.append(&process, &[1]).unwrap_err().kind(), "closed");

    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    let read = read_all(&mut process.reader_at(1)).await;
    model.check(&read, 1, process.end_sequence());
}

#[tokio::test]
async fn a_full_disk_holds_appends_back_and_a_freed_one_takes_them() {
    let disk = FakeFilesystem::new(1);
    disk.set_capacity_bytes(20_000);
    let mut process = Process::start(&disk, &config()).unwrap();
    let mut model = Model::default();
    let mut stored = 0;
    let held = loop {
        model.append(&process, &[100; 5]).unwrap();
        match process.write() {
            Some(Outcome::Stored) => stored += model.take_answers(),
            Some(Outcome::Held(hold)) => break hold,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(held, Hold::DiskFull);
    assert!(stored > 50);
    assert_eq!(model.append(&process, &[1]).unwrap_err().kind(), "busy");
    assert!(matches!(process.write(), Some(Outcome::Held(_))));
    disk.set_capacity_bytes(u64::MAX);
    assert!(matches!(process.write(), Some(Outcome::Stored)));
    assert_eq!(model.take_answers(), 5);
    model.append(&process, &[1]).unwrap();
    process.write();
    let read = read_all(&mut process.reader_at(1)).await;
    model.take_answers();
    model.check(&read, 1, stored as u64 + 7);
}

#[tokio::test]
async fn a_segment_for_which_no_file_can_be_opened_waits_until_one_can() {
    let mut held = 0;
    for call in 0..8 {
        let disk = FakeFilesystem::new(1);
        let mut process = Process::start(&disk, &config()).unwrap();
        let mut model = Model::default();
        model.append(&process, &[100]).unwrap();
        disk.fault(call, Fault::Emfile);
        match process.write() {
            Some(Outcome::Held(Hold::OpenFiles)) => {
                held += 1;
                assert!(matches!(process.write(), Some(Outcome::Stored)));
            }
            other => assert!(matches!(other, Some(Outcome::Stored)), "call {call}: {other:?}"),
        }
        assert_eq!(model.take_answers(), 1);
        let read = read_all(&mut process.reader_at(1)).await;
        model.check(&read, 1, 2);
    }
    assert!(held > 2, "{held}");
}

#[tokio::test]
async fn too_little_free_disk_and_too_old_entries_hold_appends_back() {
    let disk = FakeFilesystem::new(1);
    disk.set_capacity_bytes(50_000);
    let config = SpoolConfig {
        min_free_disk_bytes: 40_000,
        max_age_s: Some(80),
        ..config()
    };
    let mut process = Process::start(&disk, &config).unwrap();
    let kafka = process.cursor("kafka").unwrap();
    let mut model = Model::default();
    model.append(&process, &[100]).unwrap();
    assert!(matches!(process.write(), Some(Outcome::Held(Hold::MinFreeDisk))));
    disk.set_capacity_bytes(u64::MAX);
    assert!(matches!(process.write(), Some(Outcome::Stored)));

    disk.pass_ms(81_000);
    model.append(&process, &[100]).unwrap();
    assert!(matches!(process.write(), Some(Outcome::Held(Hold::MaxAge))));
    kafka.advance(2);
    assert!(matches!(process.write(), Some(Outcome::Stored)));
    // The new entry is young, although the segment before it was old.
    model.append(&process, &[100]).unwrap();
    assert!(matches!(process.write(), Some(Outcome::Stored)));
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_holds_until_it_is_set_right_and_one_that_goes_back_holds_nothing() {
    let disk = FakeFilesystem::new(1);
    let config = SpoolConfig {
        max_age_s: Some(80),
        ..config()
    };
    let mut process = Process::start(&disk, &config).unwrap();
    let _kafka = process.cursor("kafka").unwrap();
    let mut model = Model::default();
    model.append(&process, &[100]).unwrap();
    assert!(matches!(process.write(), Some(Outcome::Stored)));
    disk.pass_ms(100_000);
    model.append(&process, &[100]).unwrap();
    assert!(matches!(process.write(), Some(Outcome::Held(Hold::MaxAge))));
    disk.go_back_ms(100_000);
    assert!(matches!(process.write(), Some(Outcome::Stored)));
    disk.go_back_ms(900_000);
    model.append(&process, &[100]).unwrap();
    assert!(matches!(process.write(), Some(Outcome::Stored)));
    assert_eq!(model.take_answers(), 3);
}

#[tokio::test]
async fn a_payload_made_to_look_like_a_record_never_passes_as_one() {
    let disk = FakeFilesystem::new(1);
    let mut process = Process::start(&disk, &config()).unwrap();
    // What a device could send, to be found when the record around it is damaged.
    let mut forged = vec![0; 40];
    for sequence in 2..5u64 {
        let mut header = RecordHeader {
            crc: 0,
            payload_len: 0,
            meta_len: 0,
            commit: 0,
            sequence,
        };
        header.crc = crc32c::crc32c(&header.encode()[4..]);
        forged.extend(header.encode());
    }
    let entries = (0..6).map(|_| crate::spool::Entry {
        meta: forged.clone().into(),
        payload: forged.clone().into(),
    });
    process
        .shared
        .queue
        .push(entries.collect(), Box::new(|_| {}))
        .unwrap();
    process.write();
    flip(&disk, 1, 1);
    flip(&disk, 1, 2);
    let read = read_all(&mut process.reader_at(1)).await;
    assert_eq!(summary(&read), [Err((1..3, Cause::Corrupt)), Ok(3..7)]);
    for stored in read.iter().flatten() {
        assert_eq!(stored.payload, forged);
    }
}

#[tokio::test]
async fn a_cursor_whose_file_rots_begins_again_and_says_so() {
    let disk = FakeFilesystem::new(1);
    let (process, _) = filled(&disk, 3, 5);
    process.cursor("kafka").unwrap().advance(9);
    process.keep();
    let path = Path::new(DIR).join("cursor-kafka");
    disk.rot(&path, |content| content.fill(0));
    disk.kill();
    let process = Process::start(&disk, &config()).unwrap();
    assert_eq!(process.shared.recovery.damaged_cursors, ["kafka"]);
    assert_eq!(process.cursor("kafka").unwrap().position(), 1);
}

#[tokio::test]
async fn a_segment_of_a_newer_format_is_refused_by_name() {
    let disk = FakeFilesystem::new(1);
    filled(&disk, 1, 1);
    disk.rot(&segment(1), |content| {
        let mut header = SegmentHeader::parse(content).unwrap();
        header.version = 2;
        let progress = Progress::parse(content, header.salt).unwrap();
        content[..4096].copy_from_slice(&header.page(&progress));
    });
    disk.kill();
    let refused = Process::start(&disk, &config()).map(|_| ());
    assert!(
        matches!(
            refused,
            Err(SpoolError::Version {
                found: 2,
                known: 1,
                ..
            })
        ),
        "{refused:?}"
    );
}

/// The model's first finding: pages whose fdatasync failed count as clean, so a restart that reads them from the page
/// cache must write them again before anybody relies on them.
#[tokio::test]
async fn what_a_restart_finds_after_a_failed_fdatasync_survives_a_later_power_failure() {
    for seed in 0..100 {
        let disk = FakeFilesystem::new(seed);
        let (mut process, mut model) = filled(&disk, 3, 5);
        model.append(&process, &[100; 5]).unwrap();
        // The write, the sync, and what would have been a new segment.
        disk.fault(1, Fault::Eio);
        disk.fault(0, Fault::Death);
        process.write();
        disk.kill();
        let process = Process::start(&disk, &config()).unwrap();
        assert_eq!(process.end_sequence(), 21, "the page cache still has the commit");
        model.check(&read_all(&mut process.reader_at(1)).await, 1, 21);
        disk.power_failure();
        let process = Process::start(&disk, &config()).unwrap();
        model.check(&read_all(&mut process.reader_at(1)).await, 1, 21);
    }
}

/// The model's second finding, for cursors: segments are removed on the strength of what they say.
#[tokio::test]
async fn a_cursor_read_after_a_failed_fdatasync_does_not_fall_back_at_a_later_power_failure() {
    for seed in 0..100 {
        let disk = FakeFilesystem::new(seed);
        let (process, _) = filled(&disk, 3, 5);
        let kafka = process.cursor("kafka").unwrap();
        kafka.advance(5);
        process.keep();
        kafka.advance(9);
        disk.fault(1, Fault::Eio);
        process.keep();
        assert_eq!(kafka.saved_position(), 5);
        disk.kill();
        let process = Process::start(&disk, &config()).unwrap();
        let position = process.cursor("kafka").unwrap().position();
        disk.power_failure();
        let process = Process::start(&disk, &config()).unwrap();
        assert_eq!(process.cursor("kafka").unwrap().position(), position);
    }
}
