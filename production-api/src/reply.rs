//! Answers, as the original wrote them.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

use crate::conditions::{Conditions, EntityTag, Withheld};
use crate::cursor::Key;
use crate::error::{Error, chain};
use crate::failures::Failure;
use crate::metrics;
use crate::paging::Page;
use crate::problem::Refusal;
use crate::store::StoreError;

/// Seconds after which a client may try again when a part is down or overloaded.
const RETRY_AFTER_S: u32 = 2;
/// The same where another request under its key is worked on.
const KEY_RETRY_AFTER_S: u32 = 1;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Rows of a list that are written at once, where so many are there already. A list of fewer is one body.
const ROWS_PER_CHUNK: usize = 256;

/// `value` as a JSON body.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

pub(crate) fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// What GET answers: the value with its entity tag, or 304 where the client has it.
pub(crate) fn representation(conditions: &Conditions, value: &impl Serialize) -> Result<Response, Error> {
    let body = serde_json::to_vec(value).map_err(StoreError::from)?;
    let tag = EntityTag::of_body(&body);
    let response = if conditions.is_unmodified(&tag)? {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        response.extensions_mut().insert(Withheld { bytes: body.len() });
        response
    } else {
        ([(header::CONTENT_TYPE, JSON)], body).into_response()
    };
    Ok(tagged(response, &tag))
}

/// What a change of one resource answers, with the entity tag of what GET would answer now.
pub(crate) fn changed(written: &impl Serialize, now: &impl Serialize) -> Result<Response, Error> {
    Ok(tagged(ok(written), &EntityTag::of(now)?))
}

fn tagged(mut response: Response, tag: &EntityTag) -> Response {
    if let Some(tag) = tag.to_header() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

pub(crate) fn created(value: &impl Serialize) -> Response {
    json(StatusCode::CREATED, value)
}

/// Rows as a JSON list: a short one whole and with its entity tag, a long one written as the rows come. A failure
/// among the first rows is an answer of its own; after them, the answer breaks off.
pub(crate) async fn list<T: Serialize + Send + 'static>(
    conditions: &Conditions,
    rows: impl Stream<Item = Result<T, StoreError>> + Send + 'static,
) -> Result<Response, Error> {
    let mut rows = Box::pin(rows);
    let mut first = Vec::new();
    while first.len() < ROWS_PER_CHUNK {
        match rows.next().await {
            Some(row) => first.push(row?),
            None => return representation(conditions, &first),
        }
    }
    let rows = stream::iter(first).map(Ok).chain(rows);
    let mut separator: &[u8] = b"";
    let chunks = rows.ready_chunks(ROWS_PER_CHUNK).map(move |rows| {
        let mut chunk = Vec::new();
        for row in rows {
            chunk.extend_from_slice(separator);
            separator = b",";
            serde_json::to_writer(&mut chunk, &row.inspect_err(broke_off)?)?;
        }
        Ok::<_, StoreError>(Bytes::from(chunk))
    });
    let bracket = |text: &'static str| stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) });
    let body = Body::from_stream(bracket("[").chain(chunks).chain(bracket("]")));
    Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
}

/// A page of a list, with a link to the next where `rows` has one more row than the page.
pub(crate) fn page<T: Serialize, K: Key>(
    conditions: &Conditions,
    page: &Page<K>,
    mut rows: Vec<T>,
    key: impl Fn(&T) -> K,
) -> Result<Response, Error> {
    let size = page.rows as usize;
    let is_last = rows.len() <= size;
    rows.truncate(size);
    let mut response = representation(conditions, &rows)?;
    if let Some(last) = rows.last().filter(|_| !is_last)
        && let Some(link) = page.link_after(key(last))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn broke_off(error: &StoreError) {
    tracing::error!(error = error as &dyn std::error::Error, "a list broke off");
}

pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Shape A, `{"statusCode","message"}`: the original's plain exceptions.
fn shape_a(status: StatusCode, message: &str) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(rename = "statusCode")]
        status_code: u16,
        message: &'a str,
    }
    json(
        status,
        &Body {
            status_code: status.as_u16(),
            message,
        },
    )
}

/// Shape B, `{"message","error","statusCode"}`: the original's named exceptions. `error` is the reason phrase.
fn shape_b(status: StatusCode, message: impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Body<M> {
        message: M,
        error: &'static str,
        #[serde(rename = "statusCode")]
        status_code: u16,
    }
    let error = status.canonical_reason().unwrap_or_default();
    json(
        status,
        &Body {
            message,
            error,
            status_code: status.as_u16(),
        },
    )
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::Fields(_) | Self::Malformed(_) | Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) | Self::NotFoundNamed(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::KeyInUse => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized | Self::NoToken | Self::BadToken(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::Overloaded | Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotConfigured(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unanswered(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::RefusedBehind(_) => StatusCode::BAD_GATEWAY,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store {
                is_temporary: true, ..
            } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Store { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the log is to say: nothing of what a client did, or was not set up to be had.
    fn failure(&self, status: StatusCode) -> Option<Failure> {
        if !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED {
            return None;
        }
        let cause = match self {
            Self::Store { source, .. } => chain(source.as_ref()),
            other => other.to_string(),
        };
        Some(Failure {
            kind: self.kind(),
            cause,
        })
    }

    /// The same for problem details. What only an operator may see is not in it.
    fn refusal(&self) -> Refusal {
        let kind = match self {
            Self::Store {
                is_temporary: true, ..
            } => "unavailable",
            Self::Store { .. } => "internal",
            other => other.kind(),
        };
        let texts = match self {
            Self::Fields(messages) => messages.clone(),
            Self::Store {
                is_temporary: true, ..
            } => vec!["The database does not answer. Try again later.".into()],
            Self::Store { .. } => vec!["Internal server error".into()],
            other => vec![other.to_string()],
        };
        Refusal { kind, texts }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, refusal) = (self.status(), self.refusal());
        metrics::failed(self.kind());
        let failure = self.failure(status);
        let retry_after_s = match self {
            Self::KeyInUse => Some(KEY_RETRY_AFTER_S),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER_S),
            _ => None,
        };
        let mut response = match self {
            Self::Fields(messages) => shape_b(status, messages),
            Self::Malformed(message) | Self::NotFoundNamed(message) | Self::PreconditionFailed(message) => {
                shape_b(status, message)
            }
            Self::Store { .. } if status == StatusCode::INTERNAL_SERVER_ERROR => {
                shape_a(status, "Internal server error")
            }
            Self::Store { .. } | Self::Overloaded | Self::TimedOut => shape_a(status, "Service Unavailable"),
            other => shape_a(status, &other.to_string()),
        };
        if let Some(seconds) = retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(failure) = failure {
            response.extensions_mut().insert(failure);
        }
        response.extensions_mut().insert(refusal);
        response
    }
}
