//! Whatever the disk does: every acknowledged entry is read back, in order, once, with equal bytes.

use proptest::prelude::*;

use super::fake::{FakeFilesystem, Fault};
use super::process::{DIR, Model, Process, read_all};
use crate::spool::SpoolConfig;
use crate::spool::keeper;
use crate::spool::mutex::lock;
use crate::spool::writer::Outcome;

const CURSORS: [&str; 2] = ["kafka", "api"];

#[derive(Debug, Clone)]
enum Step {
    /// Calls of so many entries with payloads of these sizes.
    Append(Vec<Vec<usize>>),
    Write,
    Keep,
    Prove,
    /// This cursor goes this part of the way to the end.
    Advance(usize, u8),
    Read,
    Fault(u32, Fault),
    Capacity(bool),
    Pass(u64),
    Kill,
    PowerFailure,
    /// A restart that meets a fault itself, and another one after it.
    FaultyRestart(u32, Fault, bool),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8 => 0..300usize, 1 => 300..1800usize];
    let calls = proptest::collection::vec(proptest::collection::vec(size, 0..6), 1..5);
    let fault = || {
        prop_oneof![
            Just(Fault::Eio),
            Just(Fault::Enospc),
            Just(Fault::Short),
            Just(Fault::Death)
        ]
    };
    prop_oneof![
        8 => calls.prop_map(Step::Append),
        8 => Just(Step::Write),
        3 => Just(Step::Keep),
        1 => Just(Step::Prove),
        4 => (0..CURSORS.len(), any::<u8>()).prop_map(|(cursor, part)| Step::Advance(cursor, part)),
        2 => Just(Step::Read),
        3 => (0..12u32, fault()).prop_map(|(calls, fault)| Step::Fault(calls, fault)),
        1 => any::<bool>().prop_map(Step::Capacity),
        1 => (0..20_000u64).prop_map(Step::Pass),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerFailure),
        1 => (0..40u32, fault(), any::<bool>()).prop_map(|(calls, fault, power)| Step::FaultyRestart(calls, fault, power)),
        1 => Just(Step::Close),
    ]
}

fn config() -> impl Strategy<Value = SpoolConfig> {
    let hot_max_bytes = prop_oneof![Just(0), Just(3_000), Just(1 << 20)];
    let max_age_s = prop_oneof![3 => Just(None), 1 => Just(Some(16))];
    (hot_max_bytes, max_age_s, 2..8u64).prop_map(|(hot_max_bytes, max_age_s, segments)| SpoolConfig {
        max_bytes: segments * 14_000,
        max_age_s,
        min_free_disk_bytes: 0,
        segment_max_bytes: 14_000,
        queue_max_bytes: 8_000,
        hot_max_bytes,
        commit_max_bytes: 4_000,
        ..SpoolConfig::default()
    })
}

/// A run under test, and what it must never break.
struct Run {
    disk: FakeFilesystem,
    config: SpoolConfig,
    process: Process,
    model: Model,
    /// Of each cursor: what it was advanced to, and what it was saved at.
    advanced: [u64; 2],
    saved: [u64; 2],
}

impl Run {
    fn new(seed: u64, config: SpoolConfig) -> Self {
        let disk = FakeFilesystem::new(seed);
        let process = Process::start(&disk, &config).unwrap();
        for name in CURSORS {
            process.cursor(name).unwrap();
        }
        Self {
            disk,
            config,
            process,
            model: Model::default(),
            advanced: [1; 2],
            saved: [1; 2],
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Append(calls) => {
                for sizes in calls {
                    let _refused = self.model.append(&self.process, sizes);
                }
            }
            Step::Write => {
                if let Some(Outcome::Stopped) = self.process.write() {
                    self.restart(false).await;
                }
            }
            Step::Keep => {
                keeper::keep(&self.process.shared);
                self.note_saved();
            }
            Step::Prove => self.process.writer.prove(),
            Step::Advance(index, part) => {
                let cursor = self.process.cursor(CURSORS[*index]).unwrap();
                let way = self.process.end_sequence() - cursor.position();
                cursor.advance(cursor.position() + way * u64::from(*part) / 255);
                self.advanced[*index] = cursor.position();
            }
            Step::Read => self.read().await,
            Step::Fault(calls, fault) => self.disk.fault(*calls, *fault),
            Step::Capacity(full) => self
                .disk
                .set_capacity_bytes(if *full { 40_000 } else { u64::MAX }),
            Step::Pass(ms) => self.disk.pass_ms(*ms),
            Step::Kill => self.restart(false).await,
            Step::PowerFailure => self.restart(true).await,
            Step::FaultyRestart(calls, fault, power_failure) => {
                self.model.take_answers();
                self.disk.kill();
                self.disk.fault(*calls, *fault);
                // Refused, or not: the next one must find everything.
                let _started = Process::start(&self.disk, &self.config);
                self.restart(*power_failure).await;
            }
            Step::Close => {
                self.process.shared.queue.close();
                while let Some(Outcome::Stored) = self.process.write() {}
                self.process.writer.end();
                keeper::keep(&self.process.shared);
                self.note_saved();
                self.restart(false).await;
            }
        }
        self.model.take_answers();
        if self.disk.is_dead() {
            self.restart(false).await;
        }
    }

    /// Reads what is there in mid-flow. An injected fault may hit the disk now: then nothing was read.
    async fn read(&mut self) {
        let first = self.process.shared.first_sequence();
        let read = read_all(&mut self.process.reader_at(first)).await;
        if read
            .iter()
            .all(|read| !matches!(read, Err(crate::spool::ReadError::Io { .. })))
        {
            self.model.check(&read, first, self.process.end_sequence());
        }
    }

    fn note_saved(&mut self) {
        for (saved, name) in self.saved.iter_mut().zip(CURSORS) {
            *saved = self.process.cursor(name).unwrap().saved_position();
        }
    }

    /// Ends the process, perhaps with the machine, and holds what comes back to what was promised.
    async fn restart(&mut self, power_failure: bool) {
        self.model.take_answers();
        if power_failure {
            self.disk.power_failure();
        } else {
            self.disk.kill();
        }
        self.disk.set_capacity_bytes(u64::MAX);
        self.process = Process::start(&self.disk, &self.config).unwrap();
        for (index, name) in CURSORS.into_iter().enumerate() {
            let position = lock(&self.process.shared.cursors)
                .iter()
                .find(|cursor| cursor.name == name)
                .map(|_| ());
            assert!(position.is_some(), "cursor {name} is still there");
            let position = self.process.cursor(name).unwrap().position();
            let allowed = self.saved[index]..=self.advanced[index];
            assert!(
                allowed.contains(&position),
                "cursor {name} at {position}, allowed {allowed:?}"
            );
            self.saved[index] = position;
            self.advanced[index] = position;
        }
        let delivered = self.saved.into_iter().min().unwrap();
        let first = self.process.shared.first_sequence();
        assert!(first <= delivered, "nothing undelivered was removed");
        self.read().await;
    }
}

proptest! {
    #[test]
    fn whatever_the_disk_does_every_acknowledged_entry_is_read_back_once_and_in_order(
        seed: u64,
        config in config(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(seed, config);
            for step in &steps {
                run.step(step).await;
            }
            run.restart(true).await;
            run.restart(false).await;
            // And it goes on.
            run.disk.clear_faults();
            for name in CURSORS {
                run.process.cursor(name).unwrap().advance(run.process.end_sequence());
                run.advanced = [run.process.end_sequence(); 2];
            }
            run.process.keep();
            run.model.append(&run.process, &[10, 20]).unwrap();
            assert!(matches!(run.process.write(), Some(Outcome::Stored)));
            assert_eq!(run.model.take_answers(), 2);
            run.restart(true).await;
            assert!(run.disk.names().iter().all(|path| path.starts_with(DIR)));
        });
    }
}
