//! One exchange with the production API: a batch out, its answer in.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use shopfloor_proto::v1::{TelemetryBatchRefused, TelemetryBatchResult};

use crate::config::ApiSinkConfig;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What the API said to one batch.
pub(crate) enum Answer {
    Stored(TelemetryBatchResult),
    Refused(Refusal),
    Later {
        why: String,
        retry_after: Option<Duration>,
    },
}

/// It will never take the batch as it is.
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// The record that causes it, where the API names one.
    pub(crate) record: Option<usize>,
}

/// Posts batches.
#[derive(Debug)]
pub(crate) struct ApiClient {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: http::Uri,
    authorization: Option<HeaderValue>,
    timeout_ms: u32,
}

impl ApiClient {
    /// The error says what is wrong with the configuration.
    pub(crate) fn new(config: &ApiSinkConfig) -> Result<Self, String> {
        let base = config.url.as_deref().unwrap_or_default().trim_end_matches('/');
        let uri = format!("{base}{}", shopfloor_proto::INGEST_PATH);
        let uri = uri
            .parse()
            .map_err(|error| format!("{base:?} is not a base URL: {error}"))?;
        let authorization = config.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| "the token holds a character that an HTTP header cannot carry".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_millis(config.timeout_ms.into())));
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            authorization: authorization.transpose()?,
            timeout_ms: config.timeout_ms,
        })
    }

    pub(crate) async fn post(&self, body: Bytes) -> Answer {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static(shopfloor_proto::CONTENT_TYPE),
        );
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let later = |why: String| Answer::Later {
            why,
            retry_after: None,
        };
        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| describe(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((head, body.to_bytes()))
        };
        match tokio::time::timeout(Duration::from_millis(self.timeout_ms.into()), exchange).await {
            Err(_elapsed) => later(format!("no answer within {} ms", self.timeout_ms)),
            Ok(Err(why)) => later(why),
            Ok(Ok((head, body))) => interpret(head.status, &head.headers, &body),
        }
    }
}

fn interpret(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    match status {
        StatusCode::OK => match TelemetryBatchResult::decode(body) {
            Ok(result) => Answer::Stored(result),
            Err(error) => Answer::Later {
                why: format!("its answer cannot be read: {error}"),
                retry_after: None,
            },
        },
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            let refused = TelemetryBatchRefused::decode(body).unwrap_or_default();
            let said = if refused.reason.is_empty() {
                status.to_string()
            } else {
                refused.reason
            };
            Answer::Refused(Refusal {
                reason: format!("the production API refuses the record: {said}"),
                record: refused.record_index.and_then(|index| usize::try_from(index).ok()),
            })
        }
        other => Answer::Later {
            why: format!("it answers {other}"),
            retry_after: headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        },
    }
}

/// The innermost cause says what happened; hyper's own text only where.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}
