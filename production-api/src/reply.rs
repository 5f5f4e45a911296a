//! Answers, as the original wrote them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

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

pub(crate) fn created(value: &impl Serialize) -> Response {
    json(StatusCode::CREATED, value)
}

pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Shape A, `{"statusCode","message"}`: the original's plain exceptions.
pub(crate) fn shape_a(status: StatusCode, message: &str) -> Response {
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
pub(crate) fn shape_b(status: StatusCode, message: impl Serialize) -> Response {
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
