//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a write that is sent again is answered again, and
//! done once.
//!
//! The answer is stored in the write's own transaction, so a crash leaves both or neither. A write that was refused
//! stored nothing and leaves its key free.

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::api::Api;
use crate::body::Fingerprint;
use crate::error::Error;
use crate::identity::Caller;
use crate::store::Store;
use crate::store::idempotency::{Claim, Form, Hash, Recorded};
use crate::{metrics, path, reply};

pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// On an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Writes that leave nothing in the database.
const UNKEPT: &str = "/api/v1/mqtt/";
const MAX_KEY_BYTES: usize = 255;

/// What a handler needs to write under the request's key. Without a key it changes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Once(Option<Claim>);

impl<S: Sync> FromRequestParts<S> for Once {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.remove().unwrap_or(Self(None)))
    }
}

impl Once {
    /// The store for a write that answers the one row that it wrote.
    pub(crate) fn row(self, api: &Api) -> Store {
        self.store(api, Form::Row)
    }

    /// The same for a list of them.
    pub(crate) fn rows(self, api: &Api) -> Store {
        self.store(api, Form::Rows)
    }

    /// The same for no body.
    pub(crate) fn nothing(self, api: &Api) -> Store {
        self.store(api, Form::Nothing)
    }

    fn store(self, api: &Api, form: Form) -> Store {
        api.store.under(self.0.map(|claim| Claim { form, ..claim }))
    }
}

/// Answers what was answered before under the request's key, or lets the request claim it.
pub(crate) async fn replay(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    if request.method().is_safe() || !request.headers().contains_key(KEY) {
        return Ok(next.run(request).await);
    }
    if request.uri().path().starts_with(UNKEPT) {
        return Err(Error::Malformed(
            "Idempotency-Key is of no use here: what is published to MQTT is not kept. Send the request without it."
                .into(),
        ));
    }
    let claim = claim(&api, &request)?;
    match api.store.recorded(&claim.scope).await? {
        None => {
            request.extensions_mut().insert(Once(Some(claim)));
            Ok(next.run(request).await)
        }
        Some(recorded) if recorded.fingerprint != claim.fingerprint => {
            metrics::idempotency("reused");
            Err(Error::KeyReused)
        }
        Some(recorded) => {
            metrics::idempotency("replayed");
            Ok(again(recorded))
        }
    }
}

fn claim(api: &Api, request: &Request) -> Result<Claim, Error> {
    let key = key(request.headers()).ok_or_else(|| {
        Error::Malformed(format!(
            "Idempotency-Key must be one key of 1 to {MAX_KEY_BYTES} visible characters, with or without double quotes"
        ))
    })?;
    let fingerprint = request.extensions().get::<Fingerprint>();
    Ok(Claim {
        scope: scope(request, key),
        fingerprint: fingerprint.map_or([0; 32], |hash| hash.0),
        // What every write of the contract answers.
        status: match *request.method() {
            Method::POST => 201,
            Method::DELETE => 204,
            _ => 200,
        },
        form: Form::Nothing,
        max_answer_bytes: api.config.idempotency.max_answer_bytes,
    })
}

/// A key means nothing at another address, however that is written, by another method, or from another caller.
fn scope(request: &Request, key: &str) -> Hash {
    let caller = request.extensions().get::<Caller>();
    let user = caller.map_or("", |caller| &caller.user);
    let address = path::canonical(request);
    let mut hash = Sha256::new();
    for part in [request.method().as_str(), address.as_str(), user, key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The key without its quotes; the draft wants them, and most clients send none.
fn key(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(KEY).iter();
    let text = lines.next()?.to_str().ok()?.trim();
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    let is_key = (1..=MAX_KEY_BYTES).contains(&bare.len())
        && bare
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    (is_key && lines.next().is_none()).then_some(bare)
}

fn again(recorded: Recorded) -> Response {
    let is_empty = recorded.body.is_empty();
    let mut response = Response::new(Body::from(recorded.body));
    *response.status_mut() = StatusCode::from_u16(recorded.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if !is_empty {
        headers.insert(header::CONTENT_TYPE, reply::JSON);
    }
    if let Some(tag) = recorded.entity_tag.and_then(|tag| tag.parse().ok()) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| (KEY, value.parse().unwrap()));
        values.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        assert_eq!(key(&with(&["abc-1"])), Some("abc-1"));
        assert_eq!(key(&with(&["\"abc-1\""])), Some("abc-1"));
    }

    #[test]
    fn what_is_no_single_short_visible_text_is_no_key() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for values in [
            &["", ""][..],
            &[""],
            &["\"\""],
            &["a b"],
            &["\"a"],
            &["a\"b"],
            &["a", "b"],
            &[&long],
        ] {
            assert_eq!(key(&with(values)), None, "{values:?}");
        }
    }
}
