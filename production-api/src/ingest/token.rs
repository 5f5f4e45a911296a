//! Who may call `/internal/v1`: whoever knows the token, where one is configured.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

use super::state::Ingest;
use crate::error::Error;

pub(super) async fn require(State(ingest): State<Ingest>, request: Request, next: Next) -> Response {
    match &ingest.api.config.internal_token {
        Some(token) if !carries(request.headers(), token) => {
            let mut response = Error::Unauthorized.into_response();
            let challenge = HeaderValue::from_static("Bearer realm=\"shopfloor-internal\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
        _ => next.run(request).await,
    }
}

/// `Authorization: Bearer <token>`; the scheme in any case.
fn carries(headers: &HeaderMap, token: &str) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else {
        return false;
    };
    let Some((scheme, given)) = value.split_at_checked("Bearer ".len()) else {
        return false;
    };
    // Takes the same time wherever the first difference is.
    scheme.eq_ignore_ascii_case(b"Bearer ") && given.trim_ascii().ct_eq(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_the_whole_token_under_the_bearer_scheme_opens() {
        assert!(carries(&with("Bearer secret"), "secret"));
        assert!(carries(&with("bearer secret"), "secret"));
        for value in [
            "Bearer secre",
            "Bearer secrets",
            "Basic secret",
            "secret",
            "Bearer ",
            "",
        ] {
            assert!(!carries(&with(value), "secret"), "{value}");
        }
        assert!(!carries(&HeaderMap::new(), "secret"));
    }
}
