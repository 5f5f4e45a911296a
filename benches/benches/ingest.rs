//! Telemetry ingest as a gateway sees it: batches of units posted over HTTP, each committed in a real Postgres before
//! the answer.

// A measurement that cannot go on ends.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shopfloor_proto::v1::{TelemetryBatch, TelemetryRecord};
use shopfloor_tests::telemetry::{self, RunningApi, batch, unit};
use shopfloor_tests::{database, postgres};
use tokio::runtime::Runtime;

/// An API on an empty database with machines and parts 1 to 3.
async fn factory() -> RunningApi {
    let url = postgres::database("ingest_bench");
    let api = telemetry::start(telemetry::config(&url)).await;
    let db = database::connect(&url).await;
    db.batch_execute(
        r#"INSERT INTO machine SELECT FROM generate_series(1, 3);
           INSERT INTO part_information ("defaultPrice", "timeToProduce") SELECT 1.5, 10 FROM generate_series(1, 3)"#,
    )
    .await
    .expect("reference data");
    api
}

/// The next `size` units, in turn of machines 1 to 3.
fn next_batch(sequence: &mut u64, size: u64) -> TelemetryBatch {
    let first = *sequence;
    *sequence += size;
    let records: Vec<TelemetryRecord> = (first..*sequence)
        .map(|at| unit(at, 1 + (at % 3) as i32, 1 + (at % 3) as i32))
        .collect();
    batch("bench", records)
}

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let api = runtime.block_on(factory());
    let mut sequence = 0;
    let mut group = criterion.benchmark_group("ingest, one gateway");
    group.measurement_time(Duration::from_secs(5)).sample_size(20);
    for size in [500, 2_000, 5_000] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("units a batch", size), |bencher| {
            bencher.iter_custom(|batches| {
                let batches: Vec<_> = (0..batches).map(|_| next_batch(&mut sequence, size)).collect();
                let begin = Instant::now();
                for batch in &batches {
                    let (stored, ..) = runtime.block_on(api.commit(batch));
                    assert_eq!(u64::from(stored), size);
                }
                begin.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
