//! The sink against a real HTTP server that fails in chosen ways.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use shopfloor_proto::v1::telemetry_record::Body;
use shopfloor_proto::v1::{TelemetryBatchRefused, TelemetryBatchResult};
use tokio::net::TcpListener;

use super::*;
use crate::contract::Schema;
use crate::record::Destination;
use crate::spool::SpoolConfig;
use crate::stamp::Stamp;

const PATIENCE: Duration = Duration::from_secs(60);

type Reply = Response<Full<Bytes>>;
type Rule = dyn Fn(&TelemetryBatch) -> Option<Reply> + Send + Sync;

/// What the server saw: every batch that it answered, with the status.
#[derive(Default)]
struct Seen {
    batches: Mutex<Vec<(StatusCode, TelemetryBatch)>>,
    authorization: Mutex<Option<String>>,
    /// Answers given before any rule.
    script: Mutex<VecDeque<Reply>>,
}

impl Seen {
    fn stored(&self) -> Vec<TelemetryRecord> {
        let batches = self.batches.lock().unwrap();
        let stored = batches.iter().filter(|(status, _)| *status == StatusCode::OK);
        stored.flat_map(|(_, batch)| batch.records.clone()).collect()
    }
}

fn reply(status: u16, body: impl Message) -> Reply {
    Response::builder()
        .status(status)
        .body(Full::new(body.encode_to_vec().into()))
        .unwrap()
}

async fn serve(listener: TcpListener, seen: Arc<Seen>, rule: Arc<Rule>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (seen, rule) = (seen.clone(), rule.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (seen, rule) = (seen.clone(), rule.clone());
            async move {
                assert_eq!(request.uri().path(), "/internal/v1/telemetry");
                assert_eq!(request.headers()[CONTENT_TYPE], "application/x-protobuf");
                let authorization = request
                    .headers()
                    .get(AUTHORIZATION)
                    .map(|value| value.to_str().unwrap().to_owned());
                *seen.authorization.lock().unwrap() = authorization;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let batch = TelemetryBatch::decode(body).unwrap();
                let scripted = seen.script.lock().unwrap().pop_front();
                let reply = scripted.or_else(|| rule(&batch)).unwrap_or_else(|| {
                    let stored = u32::try_from(batch.records.len()).unwrap();
                    reply(
                        200,
                        TelemetryBatchResult {
                            stored,
                            ..Default::default()
                        },
                    )
                });
                seen.batches.lock().unwrap().push((reply.status(), batch));
                Ok::<_, std::convert::Infallible>(reply)
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

struct Running {
    spool: Spool,
    progress: Arc<Progress>,
    seen: Arc<Seen>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn config(address: SocketAddr) -> ApiSinkConfig {
    ApiSinkConfig {
        url: Some(format!("http://{address}/")),
        token: Some("secret".into()),
        timeout_ms: 2_000,
        max_backoff_ms: 20,
        ..ApiSinkConfig::default()
    }
}

fn sink(dir: &Path, config: ApiSinkConfig) -> (Spool, Arc<Progress>, ApiSink) {
    let limits = SpoolConfig {
        segment_max_bytes: 8 << 20,
        min_free_disk_bytes: 0,
        ..SpoolConfig::default()
    };
    let spool = Spool::open(&dir.join("spool"), "gw-1", limits.clone()).unwrap();
    let progress = Arc::new(Progress::new("api", spool.cursor("api").unwrap()));
    let last_resort = LastResort::new(dir, "gw-1", &limits);
    let sink = ApiSink::new(
        spool.clone(),
        progress.clone(),
        config,
        "gw-1".into(),
        last_resort,
    )
    .unwrap();
    (spool, progress, sink)
}

impl Running {
    async fn start(
        dir: &Path,
        rule: impl Fn(&TelemetryBatch) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted(dir, Vec::new(), rule).await
    }

    async fn scripted(
        dir: &Path,
        script: Vec<Reply>,
        rule: impl Fn(&TelemetryBatch) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seen = Arc::new(Seen::default());
        seen.script.lock().unwrap().extend(script);
        let (spool, progress, sink) = sink(dir, config(listener.local_addr().unwrap()));
        tokio::spawn(serve(listener, seen.clone(), Arc::new(rule)));
        let stop = CancellationToken::new();
        let task = tokio::spawn(sink.run(stop.clone()));
        Self {
            spool,
            progress,
            seen,
            stop,
            task,
        }
    }

    async fn store(&self, entries: Vec<Entry>) {
        store(&self.spool, entries).await;
    }

    async fn caught_up(&self) {
        let next = self.spool.status().next_sequence;
        let waited = tokio::time::timeout(PATIENCE, self.progress.reached(next)).await;
        assert!(waited.is_ok(), "stuck: {:?}", self.progress.trouble());
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.spool.close().await.unwrap();
    }

    /// The dead letters in the spool: reason and payload.
    async fn dead_letters(&self) -> Vec<(String, Bytes)> {
        let end = self.spool.status().next_sequence;
        let mut reader = self.spool.reader_at(1);
        let mut found = Vec::new();
        while reader.position() < end {
            for stored in reader.next(1_000, 1 << 20).await.unwrap() {
                let envelope = Envelope::decode(&stored.meta).unwrap();
                if let Destination::DeadLetter(letter) = envelope.destination {
                    assert_eq!(letter.refused_by, RefusedBy::Api);
                    let id = envelope.record_id[0];
                    assert!(
                        letter.first_sequence < stored.sequence,
                        "record {id} keeps its own sequence"
                    );
                    found.push((envelope.reason.to_owned(), stored.payload.clone()));
                }
            }
        }
        found
    }
}

async fn store(spool: &Spool, entries: Vec<Entry>) {
    let (sender, done) = tokio::sync::oneshot::channel();
    spool
        .append(entries, Box::new(move |result| sender.send(result).unwrap()))
        .unwrap();
    done.await.unwrap().unwrap();
}

fn entry(number: u8, destination: Destination, schema: Schema, payload: String) -> Entry {
    let mut meta = Vec::new();
    let envelope = Envelope {
        record_id: [number; 16],
        received_ms: 1_702_166_400_000,
        destination,
        schema,
        stamp: Stamp::default(),
        headers: false,
        topic: "supply_chain",
        key: "7",
        machine: "7",
        mqtt_topic: "supply-chain",
        client_id: "c",
        traceparent: "",
        reason: "",
        exchange: None,
    };
    envelope.encode(&mut meta);
    Entry {
        meta: meta.into(),
        payload: payload.into(),
    }
}

fn unit(number: u8) -> Entry {
    let payload = format!(
        r#"{{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":{number},"var5":true,"machineId":7,"partId":4}}"#
    );
    entry(number, Destination::KafkaAndApi, Schema::SupplyChain, payload)
}

fn numbers(records: &[TelemetryRecord]) -> Vec<u8> {
    records.iter().map(|record| record.record_id[0]).collect()
}

#[tokio::test]
async fn a_record_arrives_with_all_that_the_api_needs() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), |_| None).await;
    let part = r#"{"timeToProduce":12,"defaultPrice":21.6154}"#.to_owned();
    running
        .store(vec![
            unit(5),
            entry(6, Destination::Api, Schema::PartInformation, part),
            entry(7, Destination::Kafka, Schema::Json, "{}".into()),
        ])
        .await;
    running.caught_up().await;
    let stored = running.seen.stored();
    assert_eq!(numbers(&stored), [5, 6], "what is for Kafka alone is not sent");
    assert_eq!(
        (
            stored[0].sequence,
            stored[0].machine.as_str(),
            stored[0].received_ms
        ),
        (1, "7", 1_702_166_400_000)
    );
    match stored[0].body.as_ref().unwrap() {
        Body::Unit(unit) => assert_eq!(
            (unit.machine_id, unit.part_id, unit.order, unit.var5),
            (7, 4, Some(5), true)
        ),
        other => panic!("{other:?}"),
    }
    match stored[1].body.as_ref().unwrap() {
        Body::Part(part) => assert_eq!((part.id, part.default_price.as_deref()), (None, Some("21.6154"))),
        other => panic!("{other:?}"),
    }
    assert_eq!(running.seen.batches.lock().unwrap()[0].1.gateway, "gw-1");
    assert_eq!(
        running.seen.authorization.lock().unwrap().as_deref(),
        Some("Bearer secret")
    );
    running.stop().await;
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_for_with_the_same_batch() {
    let dir = tempfile::tempdir().unwrap();
    let busy = Response::builder()
        .status(503)
        .header(RETRY_AFTER, "0")
        .body(Full::default())
        .unwrap();
    let script = vec![
        busy,
        Response::builder().status(429).body(Full::default()).unwrap(),
        Response::builder().status(500).body(Full::default()).unwrap(),
        Response::builder().status(401).body(Full::default()).unwrap(),
        Response::builder().status(404).body(Full::default()).unwrap(),
    ];
    let running = Running::scripted(dir.path(), script, |_| None).await;
    running.store((1..=3).map(unit).collect()).await;
    running.caught_up().await;
    let batches = running.seen.batches.lock().unwrap().clone();
    assert_eq!(
        batches
            .iter()
            .map(|(status, _)| status.as_u16())
            .collect::<Vec<_>>(),
        [503, 429, 500, 401, 404, 200]
    );
    assert!(
        batches.iter().all(|(_, batch)| *batch == batches[0].1),
        "a repetition is the same batch"
    );
    assert!(running.dead_letters().await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let dir = tempfile::tempdir().unwrap();
    let busy = Response::builder()
        .status(503)
        .header(RETRY_AFTER, "1")
        .body(Full::default())
        .unwrap();
    let running = Running::scripted(dir.path(), vec![busy], |_| None).await;
    let begin = Instant::now();
    running.store(vec![unit(1)]).await;
    running.caught_up().await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_record_that_the_api_names_becomes_a_dead_letter_and_the_others_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), |batch| {
        let index = batch
            .records
            .iter()
            .position(|record| record.record_id[0] == 40)?;
        let record_index = u32::try_from(index).ok();
        Some(reply(
            422,
            TelemetryBatchRefused {
                reason: "record 40 is odd".into(),
                record_index,
            },
        ))
    })
    .await;
    running.store((1..=100).map(unit).collect()).await;
    running.caught_up().await;
    let expected: Vec<u8> = (1..=100).filter(|n| *n != 40).collect();
    assert_eq!(numbers(&running.seen.stored()), expected);
    let dead = running.dead_letters().await;
    assert_eq!(dead.len(), 1);
    assert!(dead[0].0.contains("record 40 is odd"), "{}", dead[0].0);
    assert_eq!(dead[0].1, unit(40).payload);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), |batch| {
        (batch.records.len() > 7).then(|| Response::builder().status(413).body(Full::default()).unwrap())
    })
    .await;
    running.store((1..=100).map(unit).collect()).await;
    running.caught_up().await;
    assert_eq!(numbers(&running.seen.stored()), (1..=100).collect::<Vec<u8>>());
    assert!(running.dead_letters().await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn an_api_that_hangs_or_is_away_gets_everything_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = config(address);
    config.timeout_ms = 200;
    let (spool, progress, sink) = sink(dir.path(), config);
    store(&spool, (1..=10).map(unit).collect()).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(sink.run(stop.clone()));
    // It accepts and says nothing, then it is gone.
    let (silent, _) = listener.accept().await.unwrap();
    let hangs = async {
        while progress.trouble().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, hangs).await.unwrap();
    assert!(
        progress.trouble().unwrap().contains("no answer within 200 ms"),
        "{:?}",
        progress.trouble()
    );
    drop((silent, listener));
    let away = async {
        while !progress
            .trouble()
            .is_some_and(|why| why.contains("refused") || why.contains("reset"))
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.unwrap();

    let seen = Arc::new(Seen::default());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    tokio::spawn(serve(
        socket.listen(16).unwrap(),
        seen.clone(),
        Arc::new(|_: &TelemetryBatch| None),
    ));
    tokio::time::timeout(PATIENCE, progress.reached(11))
        .await
        .unwrap();
    assert_eq!(numbers(&seen.stored()), (1..=10).collect::<Vec<u8>>());
    assert_eq!(progress.trouble(), None);
    stop.cancel();
    task.await.unwrap();
    spool.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_records_are_refused_only_they_become_dead_letters(
        bad in prop::collection::btree_set(1_u8..60, 0..12),
        named in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let refused = bad.clone();
            let running = Running::start(dir.path(), move |batch| {
                let index = batch.records.iter().position(|record| refused.contains(&record.record_id[0]))?;
                let record_index = if named { u32::try_from(index).ok() } else { None };
                Some(reply(400, TelemetryBatchRefused { reason: "no".into(), record_index }))
            })
            .await;
            running.store((1..60).map(unit).collect()).await;
            running.caught_up().await;
            let expected: Vec<u8> = (1..60).filter(|n| !bad.contains(n)).collect();
            assert_eq!(numbers(&running.seen.stored()), expected);
            assert_eq!(running.dead_letters().await.len(), bad.len());
            running.stop().await;
        });
    }
}
