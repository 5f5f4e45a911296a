//! What the outage came to: a table by phase, one over time, and the yardsticks.

use std::fmt;
use std::time::Duration;

use super::phase::Phase;
use super::watch::{Account, Sample};
use super::{Options, is_exactly_once};
use crate::report::Totals;

const MIB: f64 = 1024.0 * 1024.0;
/// Lines of the table over time.
const LINES: usize = 24;
/// A part of the asked rate below which the load is not what was asked for.
const LOAD_MIN: f64 = 0.95;
/// PUBACKs with Kafka away against those before. Both wait for the same disk: where that is slower meanwhile, they may be.
const PUBACK_RISE_MAX: f64 = 1.5;
/// Growth of resident memory while the backlog grows from half to whole: what is bounded is full by then.
const MEMORY_RISE_MAX: f64 = 1.1;

/// A whole run. Its text is the tables, the yardsticks, then the line of totals.
#[derive(Debug)]
pub struct Report {
    outage: Duration,
    rate_per_s: u32,
    exactly_once: bool,
    account: Account,
}

/// Something that must hold.
struct Yardstick {
    holds: bool,
    what: String,
}

impl Report {
    pub(super) fn new(options: &Options, account: Account) -> Self {
        Self {
            outage: options.outage,
            rate_per_s: options.rate_per_s,
            exactly_once: is_exactly_once(options),
            account,
        }
    }

    /// Every yardstick holds.
    pub fn is_good(&self) -> bool {
        self.yardsticks().iter().all(|yardstick| yardstick.holds)
    }

    fn phase(&self, phase: Phase) -> impl Iterator<Item = &Sample> {
        self.account
            .samples
            .iter()
            .filter(move |sample| sample.phase == phase)
    }

    fn length_s(&self, phase: Phase) -> f64 {
        let begins = &self.account.begins;
        let Some(at) = begins.iter().position(|(entered, _)| *entered == phase) else {
            return 0.0;
        };
        let ends = begins.get(at + 1).map_or(self.account.ends, |(_, next)| *next);
        (ends - begins[at].1).as_secs_f64()
    }

    fn acknowledged_per_s(&self, phase: Phase) -> f64 {
        self.account.acknowledged_by_phase[phase as usize] as f64 / self.length_s(phase).max(1e-9)
    }

    /// The backlog when Kafka was back.
    fn backlog_max(&self) -> u64 {
        let away = self.phase(Phase::During).chain(self.phase(Phase::Starting));
        let away = away.chain(self.phase(Phase::Draining));
        away.map(|sample| sample.backlog).max().unwrap_or(0)
    }

    /// Records a second by which the backlog grew while Kafka was away.
    fn growth_per_s(&self) -> f64 {
        let away_s = self.length_s(Phase::During) + self.length_s(Phase::Starting);
        self.backlog_max() as f64 / away_s.max(1e-9)
    }

    /// Records a second by which it shrank, while new ones came: from the moment Kafka was back until none was left.
    fn drain_per_s(&self) -> f64 {
        self.backlog_max() as f64 / self.length_s(Phase::Draining).max(1e-9)
    }

    /// Resident memory at half of the outage, and the most behind it, in MiB.
    fn memory_mib(&self) -> (f64, f64) {
        let during: Vec<f64> = self
            .phase(Phase::During)
            .map(|sample| sample.memory_bytes as f64 / MIB)
            .collect();
        let (first, second) = during.split_at(during.len() / 2);
        let most = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
        (most(first), most(second))
    }

    fn totals(&self) -> Totals {
        Totals::of(self.account.findings.iter())
    }

    fn yardsticks(&self) -> Vec<Yardstick> {
        let mut all = Vec::new();
        let mut must = |holds, what| all.push(Yardstick { holds, what });
        let load = self.acknowledged_per_s(Phase::During);
        must(
            load >= LOAD_MIN * f64::from(self.rate_per_s),
            format!(
                "the load is as asked: {load:.0} acknowledged/s of {}",
                self.rate_per_s
            ),
        );
        let Account { pubacks, syncs, .. } = &self.account;
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let (before, during) = (
                pubacks.ms(Phase::Before, quantile),
                pubacks.ms(Phase::During, quantile),
            );
            let (sync_before, sync_during) = (
                syncs.ms(Phase::Before, quantile),
                syncs.ms(Phase::During, quantile),
            );
            let disk = (sync_during / sync_before).max(1.0);
            must(
                during <= before * disk * PUBACK_RISE_MAX,
                format!(
                    "PUBACK {name} stays that of the disk: {during:.2} ms without Kafka, {before:.2} ms before; a page is \
                     synced in {sync_during:.2} ms, {sync_before:.2} ms before"
                ),
            );
        }
        let (half, end) = self.memory_mib();
        must(
            end <= half * MEMORY_RISE_MAX,
            format!(
                "memory is flat: {end:.0} MiB at most in the second half of the outage, {half:.0} in the first (by whose end \
                 bounded buffers must be full: else give it more MINUTES or RATE)"
            ),
        );
        let (growth, drain) = (self.growth_per_s(), self.drain_per_s());
        must(
            drain > growth,
            format!("the backlog drains faster than it grew: {drain:.0} records/s, grew by {growth:.0}"),
        );
        let broken = &self.account.findings;
        let broken = broken
            .iter()
            .filter(|finding| finding.wrong.is_broken_promise(self.exactly_once));
        let broken = broken.count();
        must(
            broken == 0,
            format!("every acknowledged message is there, in order: {broken} promises broken"),
        );
        all
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by_phase(f)?;
        self.over_time(f)?;
        for Yardstick { holds, what } in self.yardsticks() {
            writeln!(f, "{} {what}", if holds { "holds " } else { "BROKEN" })?;
        }
        let Account { pubacks, syncs, .. } = &self.account;
        let totals = self.totals();
        let (half, end) = self.memory_mib();
        write!(
            f,
            "rate_per_s {} outage_s {:.0} acknowledged {} backlog {} growth_per_s {:.0} drain_per_s {:.0} \
             puback_p99_ms_before {:.2} puback_p99_ms_during {:.2} puback_p99_ms_after {:.2} sync_p99_ms_during {:.2} \
             memory_mib_first_half {half:.0} memory_mib_second_half {end:.0} \
             missing {} out_of_order {} duplicates_kafka {} duplicates_postgres {}",
            self.rate_per_s,
            self.outage.as_secs_f64(),
            self.account.acknowledged,
            self.backlog_max(),
            self.growth_per_s(),
            self.drain_per_s(),
            pubacks.ms(Phase::Before, 0.99),
            pubacks.ms(Phase::During, 0.99),
            pubacks.ms(Phase::After, 0.99),
            syncs.ms(Phase::During, 0.99),
            totals.missing,
            totals.out_of_order,
            totals.duplicates_kafka,
            totals.duplicates_postgres
        )
    }
}

impl Report {
    fn by_phase(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { pubacks, syncs, .. } = &self.account;
        writeln!(
            f,
            "{:<10}{:>8}{:>16}{:>12}{:>9}{:>9}{:>12}{:>9}{:>9}{:>12}{:>12}",
            "phase",
            "s",
            "acknowledged/s",
            "PUBACK p50",
            "p99",
            "max ms",
            "sync p50",
            "p99",
            "max ms",
            "memory MiB",
            "backlog"
        )?;
        for phase in Phase::ALL {
            let memory = self
                .phase(phase)
                .map(|sample| sample.memory_bytes)
                .max()
                .unwrap_or(0);
            let backlog = self.phase(phase).map(|sample| sample.backlog).max().unwrap_or(0);
            writeln!(
                f,
                "{phase:<10}{:>8.0}{:>16.0}{:>12.2}{:>9.2}{:>9.1}{:>12.2}{:>9.2}{:>9.1}{:>12.0}{backlog:>12}",
                self.length_s(phase),
                self.acknowledged_per_s(phase),
                pubacks.ms(phase, 0.5),
                pubacks.ms(phase, 0.99),
                pubacks.ms(phase, 1.0),
                syncs.ms(phase, 0.5),
                syncs.ms(phase, 0.99),
                syncs.ms(phase, 1.0),
                memory as f64 / MIB,
            )?;
        }
        Ok(())
    }

    fn over_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>8}  {:<10}{:>12}{:>12}",
            "s", "phase", "memory MiB", "backlog"
        )?;
        let samples = &self.account.samples;
        for sample in samples.iter().step_by(samples.len().div_ceil(LINES).max(1)) {
            let Sample {
                at,
                phase,
                backlog,
                memory_bytes,
            } = sample;
            let memory = *memory_bytes as f64 / MIB;
            writeln!(
                f,
                "{:>8.0}  {phase:<10}{memory:>12.0}{backlog:>12}",
                at.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Finding, Place, Wrong};
    use crate::outage::Latencies;
    use crate::unit::Name;

    /// Ten seconds a phase, eight of them of draining; the backlog grows by 100/s.
    fn account(puback_ms: [u64; 6], memory_mib: impl Fn(u64) -> u64) -> Account {
        let (mut pubacks, mut syncs) = (Latencies::default(), Latencies::default());
        let mut samples = Vec::new();
        let mut begins = Vec::new();
        for (index, phase) in (0..).zip(Phase::ALL) {
            begins.push((phase, Duration::from_secs(10 * index)));
            pubacks.record(phase, Duration::from_millis(puback_ms[phase as usize]));
            syncs.record(phase, Duration::from_millis(1));
            for s in 0..10 {
                samples.push(Sample {
                    at: Duration::from_secs(10 * index + s),
                    phase,
                    backlog: match phase {
                        Phase::During => 100 * (s + 1),
                        Phase::Starting => 1000 + 100 * (s + 1),
                        Phase::Draining => 2000 - 200 * s,
                        _ => 0,
                    },
                    memory_bytes: memory_mib(10 * index + s) << 20,
                });
            }
        }
        begins[5].1 = Duration::from_secs(48);
        Account {
            samples,
            begins,
            ends: Duration::from_secs(60),
            acknowledged: 5_000,
            acknowledged_by_phase: [1_000; 6],
            pubacks,
            syncs,
            findings: Vec::new(),
        }
    }

    fn report(account: Account) -> Report {
        let options = Options {
            outage: Duration::from_secs(10),
            rate_per_s: 100,
            delivery: None,
        };
        Report::new(&options, account)
    }

    fn broken(account: Account) -> Vec<String> {
        let yardsticks = report(account).yardsticks().into_iter();
        yardsticks
            .filter(|yardstick| !yardstick.holds)
            .map(|yardstick| yardstick.what)
            .collect()
    }

    #[test]
    fn a_run_in_which_nothing_suffers_is_good_and_its_last_line_says_what_it_came_to() {
        let report = report(account([2; 6], |_| 150));
        assert!(report.is_good(), "{report}");
        let text = report.to_string();
        let last = text.lines().last().unwrap();
        assert!(
            last.starts_with(
                "rate_per_s 100 outage_s 10 acknowledged 5000 backlog 2000 growth_per_s 100 drain_per_s 250 "
            ),
            "{last}"
        );
        assert!(
            last.ends_with("missing 0 out_of_order 0 duplicates_kafka 0 duplicates_postgres 0"),
            "{last}"
        );
    }

    #[test]
    fn each_yardstick_breaks_by_itself() {
        let slow = broken(account([2, 2, 4, 2, 2, 2], |_| 150));
        assert_eq!(slow.len(), 2, "{slow:?}");
        assert!(slow[0].contains("PUBACK p50"), "{slow:?}");

        let growing = broken(account([2; 6], |s| 100 + 5 * s));
        assert!(growing.len() == 1 && growing[0].contains("memory"), "{growing:?}");

        let mut late = account([2; 6], |_| 150);
        late.begins[5].1 = Duration::from_secs(61);
        late.ends = Duration::from_secs(71);
        let late = broken(late);
        assert!(late.len() == 1 && late[0].contains("drains"), "{late:?}");

        let mut idle = account([2; 6], |_| 150);
        idle.acknowledged_by_phase[Phase::During as usize] = 500;
        let idle = broken(idle);
        assert!(idle.len() == 1 && idle[0].contains("load"), "{idle:?}");

        let mut lossy = account([2; 6], |_| 150);
        lossy.findings.push(Finding {
            name: Name {
                fleet: 0,
                machine: 1,
                order: 1,
            },
            cycle: 2,
            wrong: Wrong::Missing(Place::Kafka),
        });
        let lossy = broken(lossy);
        assert!(lossy.len() == 1 && lossy[0].contains("there"), "{lossy:?}");
    }
}
