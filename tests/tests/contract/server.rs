//! The API on a free port, a client to it, and a look into its outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use shopfloor_api::{Api, ApiConfig, Store};
use shopfloor_runtime::accept::{Listener, ListenerConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Server {
    address: std::net::SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    database: tokio_postgres::Client,
    /// The last record that was looked at.
    position: AtomicI64,
    stop: CancellationToken,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Null where there is none.
    pub(crate) body: Value,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Migrates the database and serves it, the limiter off. Nothing empties the outbox.
    pub(crate) async fn start(url: &str) -> Self {
        let mut config = ApiConfig::default();
        config.database.url = url.to_owned();
        config.rate_limit.enabled = false;
        let store = Store::new(&config.database).unwrap();
        store.migrate().await.unwrap();
        let listener = ListenerConfig::new("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind("api", listener).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let api = Api::new(config, store);
        tokio::spawn(api.serve(listener, stop.clone(), TaskTracker::new()));
        let (database, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        Self {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            database,
            position: AtomicI64::new(0),
            stop,
        }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: String,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() },
        }
    }

    /// Topic and value of every record enqueued since the last call, in order.
    pub(crate) async fn new_records(&self) -> Vec<(String, Value)> {
        let sql = "SELECT position, aggregatetype, payload::text FROM outbox WHERE position > $1 ORDER BY position";
        let rows = self.database.query(sql, &[&self.position.load(Ordering::Relaxed)]).await.unwrap();
        if let Some(last) = rows.last() {
            self.position.store(last.get(0), Ordering::Relaxed);
        }
        let value = |text: &str| serde_json::from_str(text).unwrap();
        rows.iter().map(|row| (row.get(1), value(row.get(2)))).collect()
    }
}
