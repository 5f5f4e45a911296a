//! The few operations of the production API that loading uses, over HTTP, with rows in memory. The end-to-end tests
//! load into the real one; this one can be broken on purpose.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) materials: Vec<String>,
    pub(super) parts: Vec<Value>,
    pub(super) machines: Vec<i32>,
    /// Path and body of each link and price request, as they came.
    pub(super) links: Vec<(String, Value)>,
    pub(super) prices: Vec<(String, Value)>,
    pub(super) requests: Vec<String>,
    /// Ids start after this: rows that were there and are gone.
    pub(super) deleted_before: i32,
    /// Answers 500 to the request with this number, from 1.
    pub(super) breaks_at: Option<usize>,
    /// Answers 429 to the request with this number, from 1.
    pub(super) limits_at: Option<usize>,
    pub(super) body_bytes_max: usize,
}

pub(super) struct Api {
    pub(super) base_url: String,
    rows: Arc<Mutex<Rows>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    pub(super) async fn start(rows: Rows) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/", listener.local_addr().unwrap());
        let rows = Arc::new(Mutex::new(rows));
        let shared = Arc::clone(&rows);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let rows = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&rows), request));
                let http = hyper::server::conn::http1::Builder::new();
                connections.spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { base_url, rows, task }
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }
}

async fn answer(
    rows: Arc<Mutex<Rows>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut rows = rows.lock().unwrap();
    rows.body_bytes_max = rows.body_bytes_max.max(body.len());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path().to_owned();
    rows.requests.push(format!("{} {path}", parts.method));
    let number = rows.requests.len();
    let (status, answer) = if rows.breaks_at == Some(number) {
        (
            500,
            json!({ "statusCode": 500, "message": "Internal server error" }),
        )
    } else if rows.limits_at == Some(number) {
        (
            429,
            json!({ "statusCode": 429, "message": "Rate limit exceeded" }),
        )
    } else {
        rows.apply(&parts.method, path.strip_prefix("/api/v1").unwrap(), body)
    };
    let body = if answer.is_null() {
        String::new()
    } else {
        answer.to_string()
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("retry-after", "0".parse().unwrap());
    Ok(response)
}

impl Rows {
    fn apply(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let named = |names: &[String], from: usize| -> Vec<Value> {
            names
                .iter()
                .zip(1..)
                .skip(from)
                .map(|(name, id)| json!({ "id": id, "name": name }))
                .collect()
        };
        let ids = |ids: &[i32]| -> Value { ids.iter().map(|id| json!({ "id": id })).collect() };
        match (method, path) {
            (&Method::GET, "/materials") => (200, named(&self.materials, 0).into()),
            (&Method::GET, "/machine") => (200, ids(&self.machines)),
            (&Method::GET, "/part-information") => {
                let first = self.deleted_before + 1;
                (
                    200,
                    (first..)
                        .take(self.parts.len())
                        .map(|id| json!({ "id": id }))
                        .collect(),
                )
            }
            (&Method::POST, "/materials/many-materials") => {
                let before = self.materials.len();
                let names = body["materials"].as_array().unwrap().iter();
                self.materials
                    .extend(names.map(|material| material["name"].as_str().unwrap().to_owned()));
                (201, named(&self.materials, before).into())
            }
            (&Method::POST, "/part-information/many-part-informations") => {
                let first = self.deleted_before + self.parts.len() as i32 + 1;
                let new = body["partInformations"].as_array().unwrap();
                self.parts.extend(new.iter().cloned());
                (
                    201,
                    (first..).take(new.len()).map(|id| json!({ "id": id })).collect(),
                )
            }
            (&Method::POST, "/machine/many-machines") => {
                let first = self.deleted_before + self.machines.len() as i32 + 1;
                let new: Vec<i32> = (first..)
                    .take(body["quantity"].as_u64().unwrap().try_into().unwrap())
                    .collect();
                self.machines.extend(&new);
                (201, ids(&new))
            }
            (&Method::POST, path) if path.ends_with("/part-informations") => {
                self.links.push((path.to_owned(), body));
                (201, Value::Null)
            }
            (&Method::POST, path) if path.ends_with("/many-prices") => {
                self.prices.push((path.to_owned(), body));
                (201, json!([]))
            }
            _ => (404, json!({ "message": format!("Cannot {method} {path}") })),
        }
    }
}
