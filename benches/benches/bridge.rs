//! What one message costs between the front and Kafka: route, contract check, tap to disk, tap to Kafka's
//! acknowledgement on the embedded cluster.

// A measurement that cannot go on ends.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shopfloor_benches::load::{BATCH, batch, offer_all, unit};
use shopfloor_bridge::contract::{Schema, check};
use shopfloor_bridge::routes::RouteTable;
use shopfloor_bridge::routes::rule::default_routes;
use shopfloor_bridge::stamp::{Stamp, stamp};
use shopfloor_bridge::{Bridge, BridgeConfig};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What fits the embedded cluster's memory with room to spare.
const EMBEDDED_MESSAGES: usize = 50_000;

fn steps(criterion: &mut Criterion) {
    let payload = unit(17, 12_345);
    let mut group = criterion.benchmark_group("bridge steps");
    group.throughput(Throughput::Elements(1));
    let table = RouteTable::compile(&default_routes()).expect("the default routes compile");
    for topic in ["supply-chain", "factory/berlin/17/supply-chain"] {
        group.bench_function(format!("route {topic}"), |bencher| {
            bencher.iter(|| table.lookup(black_box(topic)).is_some());
        });
    }
    group.bench_function("check supply_chain", |bencher| {
        bencher.iter(|| check(Schema::SupplyChain, black_box(payload.as_bytes()), true).is_ok());
    });
    let mut out = Vec::with_capacity(512);
    let both = Stamp {
        is_deleted: true,
        last_update: true,
    };
    group.bench_function("stamp", |bencher| {
        bencher.iter(|| {
            out.clear();
            stamp(black_box(payload.as_bytes()), both, 1_702_166_400_000, &mut out);
            out.len()
        });
    });
    group.finish();
}

fn tap_to_disk(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = BridgeConfig::default();
    config.spool.max_bytes = 64 << 30;
    let bridge = Bridge::open(config, "bench", dir.path()).expect("a bridge");
    let mut group = criterion.benchmark_group("bridge");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.measurement_time(Duration::from_secs(5)).sample_size(20);
    group.bench_function("tap to disk, messages", |bencher| {
        bencher.iter_custom(|batches| {
            let batches = (0..batches as usize).map(batch).collect();
            let begin = Instant::now();
            runtime.block_on(offer_all(&bridge, batches));
            begin.elapsed()
        });
    });
    group.finish();
}

fn tap_to_kafka(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("bridge");
    group.throughput(Throughput::Elements(EMBEDDED_MESSAGES as u64));
    group.measurement_time(Duration::from_secs(10)).sample_size(10);
    group.bench_function("tap to embedded Kafka's acknowledgement, messages", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| runtime.block_on(one_cluster())).sum());
    });
    group.finish();
}

/// A fresh cluster a round: the embedded one keeps 5 MiB a partition.
async fn one_cluster() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let bridge = Bridge::open(BridgeConfig::default(), "bench", dir.path()).expect("a bridge");
    let stop = CancellationToken::new();
    let (running, stopped) = (bridge.clone(), stop.clone());
    let sinks = tokio::spawn(async move { running.run(stopped).await });
    // The first record pays for connections and metadata.
    offer_all(&bridge, vec![batch(0)]).await;
    bridge.caught_up().await;
    let batches = (0..EMBEDDED_MESSAGES / BATCH).map(batch).collect();
    let begin = Instant::now();
    offer_all(&bridge, batches).await;
    bridge.caught_up().await;
    let took = begin.elapsed();
    stop.cancel();
    sinks.await.expect("no panic").expect("a clean end");
    took
}

criterion_group!(benches, steps, tap_to_disk, tap_to_kafka);
criterion_main!(benches);
