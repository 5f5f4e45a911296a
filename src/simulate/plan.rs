//! Which unit each machine makes, and when in simulated time. Pure: only the seed and the configuration decide.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::SimulateError;
use super::args::{Config, Speed, TopicForm};
use super::payload::{self, Fault, Kind, Message, Topics};
use super::unit::Unit;
use crate::reference::{Factory, factory};

/// The contract's times have a year of four digits.
const TIME_MAX_MS: i64 = 253_402_300_799_999;
/// Longest run of one part before the machine is set up for another.
const RUN_MAX_UNITS: u32 = 8;

/// What all machines publish.
#[derive(Debug)]
pub struct Plan {
    lines: Vec<Line>,
}

impl Plan {
    pub fn new(config: &Config) -> Result<Self, SimulateError> {
        let factory = Factory::reference()?;
        let window = match config.speed {
            Speed::Factor(factor) => config.duration.map(|real| real.mul_f64(factor)),
            Speed::Max => None,
        };
        let mut lines = Vec::new();
        for (id, makes) in (1..=config.machines).zip(factory.machines.iter().cycle()) {
            let id = i32::from(id);
            lines.push(Line {
                machine_id: id,
                order: 0,
                clock: Clock::new(config, id, parts(&factory, makes)),
                details: rng(config.seed, id, 1),
                topics: topics(config, id),
                protobuf_share: config.protobuf_share,
                invalid_share: config.invalid_share,
                left: u64::MAX,
                start_ms: config.start_ms,
                until_ms: window.map_or(TIME_MAX_MS, |window| until_ms(config.start_ms, window)),
            });
        }
        if let Some(messages) = config.messages {
            share_out(messages, &mut lines);
        }
        Ok(Self { lines })
    }

    /// One production line per machine, in the order of their ids.
    pub fn lines(self) -> impl Iterator<Item = Line> {
        self.lines.into_iter()
    }
}

fn until_ms(start_ms: i64, window: Duration) -> i64 {
    let window_ms = i64::try_from(window.as_millis()).unwrap_or(TIME_MAX_MS);
    start_ms.saturating_add(window_ms).min(TIME_MAX_MS)
}

fn parts(factory: &Factory, machine: &factory::Machine) -> Vec<(i32, i64)> {
    let seconds = |id: &i32| {
        factory
            .part(*id)
            .map(|part| (*id, i64::from(part.time_to_produce_s)))
    };
    machine.parts.iter().filter_map(seconds).collect()
}

fn topics(config: &Config, machine_id: i32) -> Topics {
    let version = config.mqtt.of_machine(machine_id);
    match config.topic {
        TopicForm::Factory => Topics::new(
            &format!("factory/{}/{machine_id}/supply-chain", config.site),
            version,
        ),
        TopicForm::Plain => Topics::new("supply-chain", version),
    }
}

/// Gives each machine its share of the first `messages` units of the whole factory, by simulated time.
fn share_out(messages: u64, lines: &mut [Line]) {
    let mut clocks: Vec<Clock> = lines.iter().map(|line| line.clock.clone()).collect();
    let mut next: BinaryHeap<_> = clocks
        .iter_mut()
        .enumerate()
        .filter_map(|(index, clock)| Some(Reverse((clock.next()?.1, index))))
        .collect();
    lines.iter_mut().for_each(|line| line.left = 0);
    for _ in 0..messages {
        let Some(Reverse((_, index))) = next.pop() else {
            return;
        };
        let (Some(line), Some(clock)) = (lines.get_mut(index), clocks.get_mut(index)) else {
            return;
        };
        line.left += 1;
        next.extend(clock.next().map(|(_, time_ms)| Reverse((time_ms, index))));
    }
}

/// A stream of random numbers of its own for each machine and purpose.
fn rng(seed: u64, machine_id: i32, purpose: u8) -> StdRng {
    let mut bytes = [0; 32];
    let parts = seed
        .to_le_bytes()
        .into_iter()
        .chain(machine_id.to_le_bytes())
        .chain([purpose]);
    bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    StdRng::from_seed(bytes)
}

/// When a machine finishes which part: the part of the plan that sharing out needs too.
#[derive(Debug, Clone)]
struct Clock {
    rng: StdRng,
    /// Part id and seconds to produce one.
    parts: Vec<(i32, i64)>,
    part: (i32, i64),
    run_left: u32,
    now_ms: i64,
}

impl Clock {
    fn new(config: &Config, machine_id: i32, parts: Vec<(i32, i64)>) -> Self {
        let mut clock = Self {
            rng: rng(config.seed, machine_id, 0),
            parts,
            part: (0, 0),
            run_left: 0,
            now_ms: config.start_ms,
        };
        clock.set_up();
        // The shift finds every machine somewhere within a unit.
        let begun_ms = clock.rng.random_range(0..=clock.part.1 * 1000);
        clock.now_ms -= begun_ms;
        clock
    }

    fn set_up(&mut self) {
        let index = self.rng.random_range(0..self.parts.len().max(1));
        self.part = self.parts.get(index).copied().unwrap_or_default();
        self.run_left = self.rng.random_range(1..=RUN_MAX_UNITS);
    }

    /// The next unit's part and the time at which it is done; none once the contract's calendar ends.
    fn next(&mut self) -> Option<(i32, i64)> {
        if self.run_left == 0 {
            self.set_up();
        }
        self.run_left -= 1;
        let (part_id, seconds) = self.part;
        self.now_ms += seconds * 1000;
        (self.now_ms <= TIME_MAX_MS).then_some((part_id, self.now_ms))
    }
}

/// One machine's messages, in order.
#[derive(Debug, Clone)]
pub struct Line {
    machine_id: i32,
    /// Of the unit before.
    order: i32,
    clock: Clock,
    details: StdRng,
    topics: Topics,
    protobuf_share: f64,
    invalid_share: f64,
    left: u64,
    start_ms: i64,
    until_ms: i64,
}

impl Line {
    pub fn machine_id(&self) -> i32 {
        self.machine_id
    }

    /// Simulated time from the start of the shift to when `unit` is done.
    pub fn since_start(&self, unit: &Unit) -> Duration {
        let ms = unit.time_of_production_ms.saturating_sub(self.start_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// Nothing follows.
    pub fn end(&mut self) {
        self.left = 0;
    }

    fn unit(&mut self, part_id: i32, time_of_production_ms: i64) -> Unit {
        const REMARKS: [&str; 4] = ["ok", "tool changed", "Fräse 2: Späne", "naïve \"check\" \\ 検査"];
        self.order += 1;
        let rng = &mut self.details;
        let mut now_and_then = || rng.random_ratio(1, 8);
        let has = [now_and_then(), now_and_then(), now_and_then(), now_and_then()];
        let var5 = now_and_then();
        let (shift, lot) = (rng.random_range(1..=3), rng.random_range(1..=9999));
        let (remark, degrees) = (rng.random_range(0..REMARKS.len()), rng.random_range(-20..=180));
        let [has_shift, has_lot, has_remark, has_degrees] = has;
        Unit {
            machine_id: self.machine_id,
            part_id,
            order: self.order,
            time_of_production_ms,
            var1: has_shift.then_some(shift),
            var2: has_lot.then(|| format!("lot-{lot:04}")),
            var3: REMARKS.get(remark).copied().filter(|_| has_remark),
            var4: has_degrees.then_some(degrees),
            var5,
        }
    }

    /// Drawn the same whatever the shares are, so that they change no unit.
    fn kind(&mut self) -> Kind {
        let (invalid, protobuf): (f64, f64) = (self.details.random(), self.details.random());
        let fault = Fault::ALL.get(self.details.random_range(0..Fault::ALL.len()));
        match fault {
            Some(fault) if invalid < self.invalid_share => Kind::Invalid(*fault),
            _ if protobuf < self.protobuf_share => Kind::Protobuf,
            _ => Kind::Json,
        }
    }
}

impl Iterator for Line {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        self.left = self.left.checked_sub(1)?;
        let made = self.clock.next().filter(|(_, time_ms)| *time_ms <= self.until_ms);
        let Some((part_id, time_ms)) = made.filter(|_| self.order < i32::MAX) else {
            self.left = 0;
            return None;
        };
        let unit = self.unit(part_id, time_ms);
        let kind = self.kind();
        Some(payload::message(unit, kind, &self.topics))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::simulate::args::MqttVersion;
    use crate::simulate::contract;

    fn config(messages: u64) -> Config {
        Config {
            messages: Some(messages),
            protobuf_share: 0.1,
            invalid_share: 0.05,
            ..Config::default()
        }
    }

    fn all(config: &Config) -> Vec<Message> {
        Plan::new(config).unwrap().lines().flatten().collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let bytes = |seed| {
            all(&Config {
                seed,
                ..config(2_000)
            })
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }

    /// rand keeps its value streams within a major version only: an upgrade that changes them must be noticed, since
    /// two builds would call different messages by one seed.
    #[test]
    fn seed_1_starts_machine_7_with_these_bytes_in_every_build() {
        let mut line = Plan::new(&Config::default()).unwrap().lines().nth(6).unwrap();
        let first: Vec<_> = line
            .by_ref()
            .take(3)
            .map(|m| String::from_utf8(m.payload.to_vec()).unwrap())
            .collect();
        assert_eq!(first, GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        r#"{"timeOfProduction":"2023-12-10T00:00:57.716Z","order":1,"var5":false,"machineId":7,"partId":23}"#,
        r#"{"timeOfProduction":"2023-12-10T00:01:57.716Z","order":2,"var5":false,"machineId":7,"partId":23}"#,
        r#"{"timeOfProduction":"2023-12-10T00:02:57.716Z","order":3,"var1":2,"var2":"lot-3258","var5":false,"machineId":7,"partId":23}"#,
    ];

    #[test]
    fn shares_of_protobuf_and_invalid_messages_change_no_unit() {
        let units = |config: &Config| {
            all(config)
                .into_iter()
                .map(|message| message.unit)
                .collect::<Vec<_>>()
        };
        let plain = Config {
            protobuf_share: 0.0,
            invalid_share: 0.0,
            ..config(1_000)
        };
        assert_eq!(units(&config(1_000)), units(&plain));
    }

    #[test]
    fn the_messages_are_the_first_of_the_shift_and_as_many_as_asked_for() {
        let messages = all(&config(1_000));
        assert_eq!(messages.len(), 1_000);
        let last_ms = messages
            .iter()
            .map(|m| m.unit.time_of_production_ms)
            .max()
            .unwrap();
        let more = all(&config(1_200));
        let earlier = more
            .iter()
            .filter(|m| m.unit.time_of_production_ms < last_ms)
            .count();
        assert!(
            earlier < 1_000,
            "{earlier} messages of the shift are earlier than the last one published"
        );
    }

    #[test]
    fn each_machine_makes_only_its_parts_at_their_pace_and_counts_up() {
        let factory = Factory::reference().unwrap();
        let mut by_machine: BTreeMap<i32, Vec<Unit>> = BTreeMap::new();
        all(&config(5_000))
            .into_iter()
            .for_each(|m| by_machine.entry(m.unit.machine_id).or_default().push(m.unit));
        assert_eq!(by_machine.len(), 50);
        for (machine, units) in &factory
            .machines
            .iter()
            .zip(by_machine.values())
            .collect::<Vec<_>>()[..]
        {
            assert!(units.iter().map(|unit| unit.order).eq(1..=units.len() as i32));
            assert!(
                units
                    .iter()
                    .all(|unit| unit.machine_id == machine.id && machine.parts.contains(&unit.part_id))
            );
            for pair in units.windows(2) {
                let seconds = factory.part(pair[1].part_id).unwrap().time_to_produce_s;
                let apart_ms = pair[1].time_of_production_ms - pair[0].time_of_production_ms;
                assert_eq!(apart_ms, i64::from(seconds) * 1000);
            }
        }
    }

    #[test]
    fn a_duration_at_a_speed_is_a_window_of_simulated_time() {
        let hour = Config {
            duration: Some(Duration::from_secs(1)),
            speed: Speed::Factor(3600.0),
            ..Config::default()
        };
        let messages = all(&hour);
        let end_ms = hour.start_ms + 3_600_000;
        assert!(
            messages
                .iter()
                .all(|m| (hour.start_ms..=end_ms).contains(&m.unit.time_of_production_ms))
        );
        // 50 machines, 60 to 177 s a unit.
        assert!(
            (50 * 20..=50 * 60).contains(&messages.len()),
            "{}",
            messages.len()
        );
    }

    #[test]
    fn the_plan_ends_before_a_year_of_five_digits() {
        let late = Config {
            start_ms: TIME_MAX_MS - 600_000,
            machines: 5,
            ..Config::default()
        };
        let messages = all(&late);
        assert!(!messages.is_empty());
        messages
            .iter()
            .for_each(|message| contract::check(message).unwrap());
    }

    #[test]
    fn every_valid_message_meets_the_contract_and_no_invalid_one_does() {
        for topic in [TopicForm::Factory, TopicForm::Plain] {
            let mqtt = MqttVersion::Mixed;
            let messages = all(&Config {
                topic,
                mqtt,
                protobuf_share: 0.3,
                invalid_share: 0.3,
                ..config(20_000)
            });
            let mut counts = BTreeMap::new();
            for message in &messages {
                let verdict = contract::check(message);
                assert_eq!(verdict.is_ok(), message.is_valid(), "{message:?}: {verdict:?}");
                *counts.entry(format!("{:?}", message.kind)).or_insert(0) += 1;
            }
            // Every fault, JSON and protobuf took part.
            assert_eq!(counts.len(), Fault::ALL.len() + 2, "{counts:?}");
        }
    }
}
