//! What went wrong, in the domain's terms, and how a client sees it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::reply::{shape_a, shape_b};
use crate::store::StoreError;

/// Why a request was not fulfilled. The texts are the client's; what only an operator may see stays in the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body's fields are invalid: one text per fault.
    #[error("invalid fields: {}", .0.join("; "))]
    Fields(Vec<String>),
    /// The request cannot be read: JSON syntax, an id that is none.
    #[error("{0}")]
    Malformed(String),
    /// Readable, but not acceptable as a whole.
    #[error("{0}")]
    Refused(String),
    /// A material, part or machine that is not there.
    #[error("{0}")]
    NotFound(String),
    /// A unit, a price or a route that is not there. The original answers these in its other shape.
    #[error("{0}")]
    NotFoundNamed(String),
    #[error("{0}")]
    Conflict(String),
    #[error("request entity too large")]
    TooLarge,
    #[error("{0}")]
    UnsupportedMedia(String),
    #[error("Unauthorized")]
    Unauthorized,
    #[error("Rate limit exceeded")]
    RateLimited,
    #[error("the service is overloaded")]
    Overloaded,
    #[error("the request took too long")]
    TimedOut,
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Seconds after which a client may try again when a part is down or overloaded.
const RETRY_AFTER_S: u32 = 2;

impl Error {
    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fields(_) => "fields",
            Self::Malformed(_) => "malformed",
            Self::Refused(_) => "refused",
            Self::NotFound(_) | Self::NotFoundNamed(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia(_) => "unsupported_media",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::TimedOut => "timed_out",
            Self::Store(error) => error.kind(),
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Fields(_) | Self::Malformed(_) | Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) | Self::NotFoundNamed(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(error) if error.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        crate::metrics::failed(self.kind());
        if let Self::Store(error) = &self {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a request failed in the store"
            );
        }
        let mut response = match self {
            Self::Fields(messages) => shape_b(status, messages),
            Self::Malformed(message) | Self::NotFoundNamed(message) => shape_b(status, message),
            Self::Store(_) if status == StatusCode::INTERNAL_SERVER_ERROR => {
                shape_a(status, "Internal server error")
            }
            Self::Store(_) | Self::Overloaded | Self::TimedOut => shape_a(status, "Service Unavailable"),
            other => shape_a(status, &other.to_string()),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
