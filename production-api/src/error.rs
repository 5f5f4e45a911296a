//! What went wrong, in the domain's terms. How a client sees it is `reply`'s.

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
    /// The resource is not as `If-Match` or `If-None-Match` wants it.
    #[error("{0}")]
    PreconditionFailed(String),
    #[error("A request with this Idempotency-Key is being worked on. Send it again for its answer.")]
    KeyInUse,
    #[error("This Idempotency-Key was used with another body. Use a new key for a new request.")]
    KeyReused,
    #[error("request entity too large")]
    TooLarge,
    #[error("{0}")]
    UnsupportedMedia(String),
    #[error("Unauthorized")]
    Unauthorized,
    #[error("this needs a bearer token")]
    NoToken,
    /// The token is not taken; the text says why.
    #[error("{0}")]
    BadToken(String),
    /// The token is good, its roles are not enough.
    #[error("{0}")]
    Forbidden(String),
    #[error("Rate limit exceeded")]
    RateLimited,
    /// What stands behind this service is not there; the text says what.
    #[error("{0}")]
    Unavailable(String),
    /// This server was not told of what the request needs.
    #[error("{0}")]
    NotConfigured(String),
    /// It did not answer in time.
    #[error("{0}")]
    Unanswered(String),
    /// It does not let this service in.
    #[error("{0}")]
    RefusedBehind(String),
    /// It does not take what the client sent.
    #[error("{0}")]
    Unprocessable(String),
    #[error("the service is overloaded")]
    Overloaded,
    #[error("the request took too long")]
    TimedOut,
    /// A bug, or a part of the build that does not work.
    #[error("Internal server error")]
    Internal,
    /// The database did not do its part; the store says how.
    #[error("the store failed")]
    Store {
        /// The metric label.
        kind: &'static str,
        /// True where the same request can succeed later.
        is_temporary: bool,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fields(_) => "fields",
            Self::Malformed(_) => "malformed",
            Self::Refused(_) => "refused",
            Self::NotFound(_) | Self::NotFoundNamed(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::PreconditionFailed(_) => "precondition_failed",
            Self::KeyInUse => "idempotency_key_in_use",
            Self::KeyReused => "idempotency_key_reused",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia(_) => "unsupported_media",
            Self::Unauthorized | Self::NoToken | Self::BadToken(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Unavailable(_) => "unavailable",
            Self::NotConfigured(_) => "not_configured",
            Self::Unanswered(_) => "unanswered",
            Self::RefusedBehind(_) => "refused_behind",
            Self::Unprocessable(_) => "unprocessable",
            Self::Overloaded => "overloaded",
            Self::TimedOut => "timed_out",
            Self::Internal => "internal",
            Self::Store { kind, .. } => kind,
        }
    }
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line
}
