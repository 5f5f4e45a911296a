//! JSON over HTTP/1.1 to a production API: small bodies, deadlines, and patience with its rate limit.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_MAX_BYTES: usize = 8 << 20;
/// Answers 429 and 503 that one request waits out before it gives up.
const WAITS_MAX: u32 = 5;
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What kept a request from its answer.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error("the API's address {0:?} is not of the form http://host:port")]
    Address(String),
    #[error("{request}: no answer from the API")]
    Unreachable {
        request: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{request}: no answer from the API within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout { request: String },
    #[error("{request}: the API answered {status}: {body}")]
    Status {
        request: String,
        status: StatusCode,
        body: String,
    },
    #[error("{request}: the API's answer is not of the form that the contract gives")]
    Form {
        request: String,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Debug)]
pub(super) struct Rest {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Rest {
    /// `base_url` is scheme, host and port; a trailing slash is ignored.
    pub(super) fn new(base_url: &str) -> Result<Self, RestError> {
        let uri: Uri = base_url
            .parse()
            .map_err(|_| RestError::Address(base_url.to_owned()))?;
        let plain = uri.scheme_str() == Some("http") && uri.host().is_some() && uri.path() == "/";
        if !plain || uri.query().is_some() {
            return Err(RestError::Address(base_url.to_owned()));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self {
            client,
            base: format!("{}/api/v1", base_url.trim_end_matches('/')),
        })
    }

    /// GET of `path` below `/api/v1`.
    pub(super) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, RestError> {
        let (name, body) = self.request(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|source| RestError::Form {
            request: name,
            source,
        })
    }

    /// POST of a JSON body to `path` below `/api/v1`.
    pub(super) async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<A, RestError> {
        let (name, body) = self
            .request(Method::POST, path, Bytes::from(body.to_string()))
            .await?;
        // Links answer 201 without a body.
        let body = if body.is_empty() {
            Bytes::from_static(b"null")
        } else {
            body
        };
        serde_json::from_slice(&body).map_err(|source| RestError::Form {
            request: name,
            source,
        })
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<(String, Bytes), RestError> {
        let name = format!("{method} /api/v1{path}");
        let mut waits = 0;
        loop {
            let once = self.once(&name, method.clone(), path, body.clone());
            let (status, headers, answer) = match tokio::time::timeout(REQUEST_TIMEOUT, once).await {
                Ok(answer) => answer?,
                Err(_) => return Err(RestError::Timeout { request: name }),
            };
            let busy = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
            if status.is_success() {
                return Ok((name, answer));
            } else if !busy || waits == WAITS_MAX {
                let body = String::from_utf8_lossy(&answer).chars().take(500).collect();
                return Err(RestError::Status {
                    request: name,
                    status,
                    body,
                });
            }
            waits += 1;
            let wait = retry_after(&headers);
            tracing::info!(request = name, %status, ?wait, "the API asks to come back later");
            tokio::time::sleep(wait).await;
        }
    }

    async fn once(
        &self,
        name: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Bytes), RestError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| RestError::Unreachable {
            request: name.to_owned(),
            source,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| unreachable(error.into()))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| unreachable(error.into()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES)
            .collect()
            .await
            .map_err(unreachable)?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    }
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds
        .map_or(Duration::from_secs(1), Duration::from_secs)
        .min(WAIT_MAX)
}
