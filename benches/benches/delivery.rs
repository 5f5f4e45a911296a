//! From the spool to a real Kafka: both ways of delivery in turn, a backlog at a time.

// A measurement that cannot go on ends. What it found goes to stdout.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use shopfloor_benches::load::{BATCH, batch, offer_all};
use shopfloor_bridge::config::Delivery;
use shopfloor_bridge::{Bridge, BridgeConfig};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const BACKLOG_BATCHES: usize = 1_200;
const WAYS: [(&str, Delivery); 2] = [
    ("at-least-once", Delivery::AtLeastOnce),
    ("exactly-once", Delivery::ExactlyOnce),
];

fn main() {
    let Some(kafka) = shopfloor_tests::kafka::own() else {
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    let mut rates: [Vec<f64>; WAYS.len()] = Default::default();
    // The first round pays for topics, the JVM and the page cache.
    for round in 0..=ROUNDS {
        for ((name, delivery), rates) in WAYS.into_iter().zip(&mut rates) {
            let took = runtime.block_on(deliver_backlog(&kafka.bootstrap(), delivery));
            let rate = (BACKLOG_BATCHES * BATCH) as f64 / took.as_secs_f64();
            if round > 0 {
                println!("round {round}  {name:<15}{rate:>10.0} records/s");
                rates.push(rate);
            }
        }
    }
    let [at_least_once, exactly_once] = rates.map(median);
    println!(
        "at_least_once_per_s {at_least_once:.0} exactly_once_per_s {exactly_once:.0} ratio {:.2}",
        exactly_once / at_least_once
    );
}

/// How long a gateway's sink takes for what waits in its spool, the start of its producer included.
async fn deliver_backlog(bootstrap: &str, delivery: Delivery) -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = BridgeConfig::default();
    config.kafka.bootstrap_servers = bootstrap.to_owned();
    config.kafka.delivery = delivery;
    let bridge = Bridge::open(config, "bench", dir.path()).expect("a bridge");
    offer_all(&bridge, (0..BACKLOG_BATCHES).map(batch).collect()).await;
    let stop = CancellationToken::new();
    let (running, stopped) = (bridge.clone(), stop.clone());
    let begin = Instant::now();
    let sinks = tokio::spawn(async move { running.run(stopped).await });
    bridge.caught_up().await;
    let took = begin.elapsed();
    stop.cancel();
    sinks.await.expect("no panic").expect("a clean end");
    took
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
