//! The REST API inside the test, a client to it, and a look into its outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::postgres;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use shopfloor_api::outbox::{PublishError, Publisher, Publishing, Record};
use shopfloor_api::{Api, ApiConfig, Store};
use shopfloor_runtime::accept::{Listener, ListenerConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An API and a client to it.
pub struct Server {
    pub address: std::net::SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    pub store: Store,
    /// A connection of the test's own.
    pub database: tokio_postgres::Client,
    /// The last record that was looked at.
    position: AtomicI64,
    stop: CancellationToken,
}

struct NoKafka;

impl Publisher for NoKafka {
    fn publish(&self, records: Vec<Record>) -> Publishing<'_> {
        let down = || Err(PublishError::Unavailable("there is none".into()));
        Box::pin(async move { records.iter().map(|_| down()).collect() })
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where there is no JSON.
    pub body: Value,
    pub bytes: Bytes,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Migrates a new database and serves it, the limiter off. Nothing empties the outbox.
    pub async fn fresh() -> Self {
        Self::configured(|_| {}).await
    }

    /// The same with settings of the caller's choice.
    pub async fn configured(configure: impl FnOnce(&mut ApiConfig)) -> Self {
        // Making a database blocks.
        let url = tokio::task::spawn_blocking(|| postgres::database("contract"));
        let any_port = ListenerConfig::new("127.0.0.1:0".parse().unwrap());
        Self::start(&url.await.unwrap(), any_port, configure).await
    }

    /// Migrates a database and serves it, the limiter off unless `configure` says otherwise.
    pub async fn start(url: &str, listener: ListenerConfig, configure: impl FnOnce(&mut ApiConfig)) -> Self {
        let mut config = ApiConfig::default();
        config.database.url = url.to_owned();
        config.rate_limit.enabled = false;
        configure(&mut config);
        let store = Store::new(&config.database).unwrap();
        store.migrate().await.unwrap();
        let listener = Listener::bind("api", listener).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        // Only the background work, which does not run here, would publish.
        let api = Api::new(config, store.clone(), Arc::new(NoKafka));
        tokio::spawn(api.serve(listener, stop.clone(), TaskTracker::new()));
        Self::at(address, url, store, stop).await
    }

    /// A client to an API that serves that database at `address`; `stop` ends it.
    pub async fn at(address: std::net::SocketAddr, url: &str, store: Store, stop: CancellationToken) -> Self {
        let (database, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        Self {
            address,
            // A connection a request: one on which a body was refused unread is closed behind its answer.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            store,
            database,
            position: AtomicI64::new(0),
            stop,
        }
    }

    /// A request with a JSON body under `/api/v1`, none where it is null, and its answer.
    pub async fn json(&self, method: &str, path: &str, body: Value) -> Answer {
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(method, &format!("/api/v1{path}"), &json, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", &format!("/api/v1{path}"), &[], String::new())
            .await
    }

    /// The text at an address that answers 200.
    pub async fn page(&self, path: &str) -> String {
        let uri = format!("http://{}{path}", self.address).parse().unwrap();
        let answer = self.client.get(uri).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// The single number that `sql` answers.
    pub async fn count(&self, sql: &str) -> i64 {
        self.database.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The same with headers of the caller's choice.
    pub async fn with(&self, headers: &[(&str, &str)], method: &str, path: &str, body: Value) -> Answer {
        let mut all: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let body = if body.is_null() {
            String::new()
        } else {
            all.push(("content-type".into(), "application/json".into()));
            body.to_string()
        };
        self.send(method, &format!("/api/v1{path}"), &all, body).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body.into())).unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            body: json(&head.headers, &body),
            bytes: body,
            headers: head.headers,
        }
    }

    /// Topic and value of every record enqueued since the last call, in order.
    pub async fn new_records(&self) -> Vec<(String, Value)> {
        let sql =
            "SELECT position, aggregatetype, payload::text FROM outbox WHERE position > $1 ORDER BY position";
        let rows = self
            .database
            .query(sql, &[&self.position.load(Ordering::Relaxed)])
            .await
            .unwrap();
        if let Some(last) = rows.last() {
            self.position.store(last.get(0), Ordering::Relaxed);
        }
        let value = |text: &str| serde_json::from_str(text).unwrap();
        rows.iter().map(|row| (row.get(1), value(row.get(2)))).collect()
    }
}

fn json(headers: &HeaderMap, body: &[u8]) -> Value {
    let named = headers
        .get("content-type")
        .is_some_and(|name| name.to_str().unwrap().contains("json"));
    if !named || body.is_empty() || headers.contains_key("content-encoding") {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap()
}

impl Answer {
    /// Status and, where the body is an error, its text or texts.
    pub fn refusal(&self) -> (u16, Value) {
        (self.status, self.body["message"].clone())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
