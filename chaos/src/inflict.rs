//! Each fault in action: done, held, undone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use shopfloor_tests::http;
use shopfloor_tests::proxy::Network;
use shopfloor_tests::server::Server;

use crate::clock;
use crate::disk::Disk;
use crate::fault::{Fault, Part, Wire};
use crate::rig::{OUTLAST, Rig, ok};
use crate::segments::{self, Damaged, Segment};

/// Longest time that a killed part stays away.
const AWAY_MAX_MS: u64 = 800;
/// Time in which what nobody takes piles up in the spool.
const BACKLOG_MS: std::ops::Range<u64> = 400..1_200;
/// Longest time until a disk that takes nothing is noticed: what is left of a segment, and two recycled ones.
const HELD_WITHIN: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const FLIPS_MAX: usize = 3;
/// Within what the API's ledger remembers.
const STEP_MAX_S: i64 = 3 * 86_400;

/// Does it and undoes it: when it returns, everything could work again. What it has damaged for good is returned.
pub fn inflict(fault: Fault, rig: &mut Rig, rng: &mut StdRng) -> Result<Vec<Damaged>> {
    match fault {
        Fault::Kill(part) => kill(part, rig, rng),
        Fault::Stop(part) => stop(part, rig, rng),
        Fault::Hang(wire) => hang(wire, rig, rng),
        Fault::DiskFull => disk_full(rig, rng)?,
        Fault::ReadOnly => read_only(rig, rng)?,
        Fault::ClockStep => clock_step(rig, rng)?,
        Fault::TornTail => {
            return damage(rig, rng, |segments, rng| {
                segments::tear(segments, rng).map(|()| Vec::new())
            });
        }
        Fault::FlippedTail => {
            return damage(rig, rng, |segments, rng| {
                segments::flip_in_tail(segments, rng).map(|damaged| damaged.into_iter().collect())
            });
        }
        Fault::FlippedAny => {
            return damage(rig, rng, |segments, rng| {
                let flips = rng.random_range(1..=FLIPS_MAX);
                let damaged: std::io::Result<Vec<_>> = (0..flips)
                    .map(|_| segments::flip_anywhere(segments, rng))
                    .collect();
                damaged.map(|damaged| damaged.into_iter().flatten().collect())
            });
        }
    }
    if let Some(clock) = &rig.clock {
        clock.sweep();
    }
    Ok(Vec::new())
}

fn kill(part: Part, rig: &mut Rig, rng: &mut StdRng) {
    let away = Duration::from_millis(rng.random_range(0..AWAY_MAX_MS));
    match part {
        Part::Gateway => kill_servers(&mut [&mut rig.gateway], away),
        Part::Api => {
            let [one, other] = &mut rig.apis;
            match rng.random_range(0..3) {
                0 => kill_servers(&mut [one], away),
                1 => kill_servers(&mut [other], away),
                _ => kill_servers(&mut [one, other], away),
            }
        }
        Part::Kafka => {
            ok(rig.kafka.kill());
            sleep(away);
            ok(rig.kafka.restart());
        }
        Part::Postgres => {
            ok(rig.postgres.kill());
            sleep(away);
            ok(rig.postgres.restart());
        }
        Part::Haproxy => {
            ok(rig.haproxy.kill());
            sleep(away);
            ok(rig.haproxy.restart());
        }
    }
}

fn kill_servers(servers: &mut [&mut Server], away: Duration) {
    servers.iter_mut().for_each(|server| server.kill());
    sleep(away);
    servers.iter_mut().for_each(|server| server.restart());
    servers.iter_mut().for_each(|server| server.wait_ready());
}

fn stop(part: Part, rig: &mut Rig, rng: &mut StdRng) {
    let both = rng.random();
    let apis = || rig.apis.iter().take(if both { 2 } else { 1 });
    match part {
        Part::Gateway => rig.gateway.pause(),
        Part::Api => apis().for_each(Server::pause),
        Part::Kafka => ok(rig.kafka.pause()),
        Part::Postgres => ok(rig.postgres.pause()),
        Part::Haproxy => ok(rig.haproxy.pause()),
    }
    sleep(OUTLAST);
    match part {
        Part::Gateway => rig.gateway.resume(),
        Part::Api => apis().for_each(Server::resume),
        Part::Kafka => ok(rig.kafka.resume()),
        Part::Postgres => ok(rig.postgres.resume()),
        Part::Haproxy => ok(rig.haproxy.resume()),
    }
}

fn hang(wire: Wire, rig: &Rig, rng: &mut StdRng) {
    let wire = rig.wires.get(wire);
    wire.set(Network::Silent);
    sleep(OUTLAST);
    // What hung goes on where it stopped, late; or it never does, and nobody is told.
    if rng.random() {
        wire.set(Network::Passes);
    } else {
        wire.abandon();
    }
}

/// Until what is dead or alive in the spool has the damage, neither end takes anything: some of what is damaged is the
/// only copy.
fn damage(
    rig: &mut Rig,
    rng: &mut StdRng,
    how: impl FnOnce(&[Segment], &mut StdRng) -> std::io::Result<Vec<Damaged>>,
) -> Result<Vec<Damaged>> {
    hold_sinks(rig);
    sleep(Duration::from_millis(rng.random_range(BACKLOG_MS)));
    rig.gateway.kill();
    let segments = segments::read(&rig.data_dir()).context("reading the spool of the dead gateway")?;
    let damaged = how(&segments, rng).context("damaging the spool of the dead gateway")?;
    release_sinks(rig);
    rig.gateway.restart();
    rig.gateway.wait_ready();
    Ok(damaged)
}

fn disk_full(rig: &mut Rig, rng: &mut StdRng) -> Result<()> {
    // What is delivered would be recycled, and make room.
    hold_sinks(rig);
    disk(rig).fill()?;
    if rng.random() {
        rig.gateway.kill();
        rig.gateway.restart();
        wait_for(rig, "a start on a full disk", "/live", 200)?;
    }
    wait_for(rig, "appends held back by a full disk", "/ready", 503)?;
    disk(rig).free()?;
    release_sinks(rig);
    rig.gateway.wait_ready();
    Ok(())
}

fn read_only(rig: &mut Rig, rng: &mut StdRng) -> Result<()> {
    if rng.random() {
        return read_only_at_start(rig);
    }
    hold_sinks(rig);
    disk(rig).cover()?;
    let held = wait_for(rig, "appends held back by a read-only disk", "/ready", 503);
    disk(rig).uncover()?;
    release_sinks(rig);
    held?;
    rig.gateway.wait_ready();
    Ok(())
}

/// It may end with the reason, as an operator's supervisor would see it, or wait.
fn read_only_at_start(rig: &mut Rig) -> Result<()> {
    rig.gateway.kill();
    disk(rig).remount("ro")?;
    rig.gateway.restart();
    sleep(Duration::from_secs(1));
    disk(rig).remount("rw")?;
    if !rig.gateway.is_running() {
        rig.gateway.restart();
    }
    rig.gateway.wait_ready();
    Ok(())
}

fn clock_step(rig: &Rig, rng: &mut StdRng) -> Result<()> {
    let clock = rig.clock.as_ref().context("no clock that can be set")?;
    // As often by seconds as by days.
    let magnitude = (STEP_MAX_S as f64).powf(rng.random()) as i64;
    clock.set(if rng.random() { magnitude } else { -magnitude })?;
    sleep(clock::SEEN_AFTER + Duration::from_millis(rng.random_range(BACKLOG_MS)));
    // As an operator or NTP would: Kafka takes no record of more than an hour ahead.
    clock.set(0)?;
    sleep(clock::SEEN_AFTER);
    Ok(())
}

fn hold_sinks(rig: &Rig) {
    to_sinks(rig, Network::Silent);
}

fn release_sinks(rig: &Rig) {
    to_sinks(rig, Network::Passes);
}

fn to_sinks(rig: &Rig, network: Network) {
    rig.wires.get(Wire::Kafka).set(network);
    rig.wires.get(Wire::Api).set(network);
}

fn disk(rig: &Rig) -> &Disk {
    rig.disk.as_ref().expect("a rig for this fault has a disk")
}

fn wait_for(rig: &Rig, what: &str, path: &str, status: u16) -> Result<()> {
    let since = Instant::now();
    loop {
        let answer = http::get(rig.gateway.admin(), path);
        if answer.as_ref().is_ok_and(|answer| answer.status == status) {
            return Ok(());
        }
        ensure!(
            since.elapsed() < HELD_WITHIN,
            "not within {HELD_WITHIN:?}: {what}; {path} says {answer:?}"
        );
        sleep(POLL_INTERVAL);
    }
}
