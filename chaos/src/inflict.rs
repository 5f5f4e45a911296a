//! Each fault in action: done, held, undone.

use std::thread::sleep;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use shopfloor_tests::server::Server;

use crate::fault::{Fault, Part, Wire};
use crate::rig::{OUTLAST, Rig, ok};

/// Longest time that a killed part stays away.
const AWAY_MAX_MS: u64 = 800;

/// Does it and undoes it: when it returns, everything could work again.
pub fn inflict(fault: Fault, rig: &mut Rig, rng: &mut StdRng) {
    match fault {
        Fault::Kill(part) => kill(part, rig, rng),
        Fault::Stop(part) => stop(part, rig, rng),
        Fault::Hang(wire) => hang(wire, rig, rng),
    }
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
    let link = rig.wires.get(wire);
    link.hang();
    sleep(OUTLAST);
    // What hung goes on where it stopped, late; or it never does, and nobody is told.
    if rng.random() {
        link.release();
    } else {
        link.abandon();
    }
}
