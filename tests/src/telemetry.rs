//! A gateway's side of the production API's `/internal/v1`, and the API to talk to.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use shopfloor_api::outbox::{PublishError, Publisher, Publishing, Record};
use shopfloor_api::{Api, ApiConfig, Store};
use shopfloor_proto::v1::telemetry_record::Body;
use shopfloor_proto::v1::{
    MaterialData, PartReference, TelemetryBatch, TelemetryBatchRefused, TelemetryBatchResult,
    TelemetryRecord, UnitProduced,
};
use shopfloor_runtime::accept::{Listener, ListenerConfig};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// A production API on a port of its own. It stops when it is dropped.
pub struct RunningApi {
    pub base: String,
    pub store: Store,
    pub client: Client<HttpConnector, Full<Bytes>>,
    _stop: DropGuard,
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A Kafka that is never reached.
pub struct NoKafka;

impl Publisher for NoKafka {
    fn publish(&self, records: Vec<Record>) -> Publishing<'_> {
        let down = || Err(PublishError::Unavailable("no Kafka in this test".into()));
        let results = records.iter().map(|_| down()).collect();
        Box::pin(async { results })
    }
}

/// The settings of a test: that database, no rate limit.
pub fn config(database_url: &str) -> ApiConfig {
    let mut config = ApiConfig {
        listener: ListenerConfig::new(([127, 0, 0, 1], 0).into()),
        ..ApiConfig::default()
    };
    database_url.clone_into(&mut config.database.url);
    config.rate_limit.enabled = false;
    config
}

/// Migrates and serves, without the relay and the upkeep.
pub async fn start(config: ApiConfig) -> RunningApi {
    let store = Store::new(&config.database).expect("a store");
    store.migrate().await.expect("migrated");
    let listener = Listener::bind("test", config.listener.clone())
        .await
        .expect("bound");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let api = Api::new(config, store.clone(), Arc::new(NoKafka));
    tokio::spawn(api.serve(listener, stop.clone(), TaskTracker::new()));
    RunningApi {
        base,
        store,
        client: Client::builder(TokioExecutor::new()).build_http(),
        _stop: stop.drop_guard(),
    }
}

impl RunningApi {
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let response = self.client.request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the whole answer").to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub async fn post(&self, batch: &TelemetryBatch) -> Answer {
        let headers = [("content-type", shopfloor_proto::CONTENT_TYPE)];
        self.request(
            Method::POST,
            shopfloor_proto::INGEST_PATH,
            &headers,
            batch.encode_to_vec(),
        )
        .await
    }

    /// Posts a batch that must be committed; returns stored, duplicates and quarantined.
    pub async fn commit(&self, batch: &TelemetryBatch) -> (u32, u32, u32) {
        let answer = self.post(batch).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.refused());
        let result = TelemetryBatchResult::decode(answer.body).expect("a result");
        let counts = (result.stored, result.duplicates, result.quarantined);
        assert_eq!(
            counts.0 + counts.1 + counts.2,
            batch.records.len() as u32,
            "{counts:?}"
        );
        counts
    }

    pub async fn get_json(&self, path: &str) -> serde_json::Value {
        let answer = self.request(Method::GET, path, &[], Vec::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    pub async fn post_json(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let headers = [("content-type", "application/json")];
        let answer = self
            .request(Method::POST, path, &headers, body.to_string().into_bytes())
            .await;
        assert!(answer.status.is_success(), "{answer:?}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }
}

impl Answer {
    pub fn refused(&self) -> TelemetryBatchRefused {
        TelemetryBatchRefused::decode(self.body.clone()).unwrap_or_default()
    }
}

pub fn batch(gateway: &str, records: Vec<TelemetryRecord>) -> TelemetryBatch {
    TelemetryBatch {
        gateway: gateway.into(),
        records,
    }
}

pub fn record(sequence: u64, body: Body) -> TelemetryRecord {
    TelemetryRecord {
        record_id: Uuid::now_v7().as_bytes().to_vec().into(),
        sequence,
        machine: "press-1".into(),
        received_ms: 1_702_166_402_000,
        body: Some(body),
        traceparent: String::new(),
    }
}

pub fn unit(sequence: u64, machine_id: i32, part_id: i32) -> TelemetryRecord {
    let unit = UnitProduced {
        machine_id,
        part_id,
        time_of_production_ms: 1_702_166_400_789,
        order: Some(5),
        ..UnitProduced::default()
    };
    record(sequence, Body::Unit(unit))
}

pub fn part(sequence: u64, id: Option<i32>, price: Option<&str>, time_to_produce: i32) -> TelemetryRecord {
    let part = PartReference {
        id,
        default_price: price.map(Into::into),
        time_to_produce,
    };
    record(sequence, Body::Part(part))
}

pub fn material(sequence: u64, id: Option<i32>, name: &str) -> TelemetryRecord {
    let material = MaterialData {
        id,
        name: name.into(),
    };
    record(sequence, Body::Material(material))
}

pub fn id_of(record: &TelemetryRecord) -> Uuid {
    Uuid::from_slice(&record.record_id).expect("16 bytes")
}
