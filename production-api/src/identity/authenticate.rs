//! The token of a request to its caller.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use shopfloor_runtime::jwks::TokenError;

use super::{Caller, Identity, Role};
use crate::error::Error;
use crate::metrics;

/// What a request without a token is told.
const CHALLENGE: &str = "Bearer realm=\"shopfloor\"";

/// Lets a request with a proven token pass, with its [`Caller`]. Streams end when the token does.
pub(crate) async fn authenticate(
    State(identity): State<Identity>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = match bearer(request.headers()) {
        Ok(Some(token)) => token,
        Ok(None) => {
            metrics::token_refused("missing");
            return challenge(Error::NoToken, CHALLENGE.to_owned());
        }
        Err(text) => return invalid("malformed", text),
    };
    let Some(verifier) = &identity.verifier else {
        return Error::Unavailable("the identity provider cannot be asked".into()).into_response();
    };
    let token = match verifier.verify(token).await {
        Ok(token) => token,
        Err(TokenError::NoKeys) => {
            metrics::token_refused(TokenError::NoKeys.kind());
            return Error::Unavailable(TokenError::NoKeys.to_string()).into_response();
        }
        Err(error) => return invalid(error.kind(), &error.to_string()),
    };
    tracing::Span::current().record("user", &token.user);
    let role = Role::of(&token.claims, &identity.config.role_claims);
    let user = token.user.clone();
    request.extensions_mut().insert(Caller { user, role });
    let response = next.run(request).await;
    end_with_token(response, token.expires_s.saturating_add(identity.config.leeway_s))
}

/// The token of `Authorization: Bearer <token>`; the scheme in any case.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("there is more than one Authorization header");
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or("the Authorization header is no bearer token")?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err("the Authorization header is no bearer token");
    }
    Ok(Some(token.trim()))
}

/// `text` holds nothing of the token.
fn invalid(kind: &'static str, text: &str) -> Response {
    metrics::token_refused(kind);
    let header = format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{text}\"");
    challenge(Error::BadToken(text.to_owned()), header)
}

/// The error, with what its client should do.
pub(super) fn challenge(error: Error, header: String) -> Response {
    let mut response = error.into_response();
    if let Ok(value) = HeaderValue::try_from(header) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// The error of a caller without the role.
pub(super) fn forbidden(needed: Role) -> Response {
    metrics::token_refused("role");
    let text = format!("this needs the role {}", needed.name());
    let header = format!("{CHALLENGE}, error=\"insufficient_scope\", error_description=\"{text}\"");
    challenge(Error::Forbidden(text), header)
}

fn end_with_token(response: Response, expires_s: u64) -> Response {
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(expires_s).saturating_sub(now);
    response.map(|body| {
        let until = Box::pin(tokio::time::sleep(left));
        Body::from_stream(body.into_data_stream().take_until(until))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_alone_under_the_bearer_scheme() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(|token| token.map(str::to_owned))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer a.b.c"]), Ok(Some("a.b.c".into())));
        assert_eq!(read(&["bearer  a.b.c"]), Ok(Some("a.b.c".into())));
        for wrong in [
            &["Basic a"][..],
            &["Bearer"],
            &["a.b.c"],
            &["Bearer a", "Bearer b"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
