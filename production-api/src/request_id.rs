//! The name of a request, for both sides' logs: the caller's own where it sent one.

use http::{HeaderMap, HeaderName};
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::Uuid;

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Names a request that came without one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshId;

impl MakeRequestId for FreshId {
    fn make_request_id<B>(&mut self, _request: &http::Request<B>) -> Option<RequestId> {
        let id = Uuid::now_v7().to_string();
        id.parse().ok().map(RequestId::new)
    }
}

/// Empty where it is no text.
pub(crate) fn of(headers: &HeaderMap) -> &str {
    headers
        .get(HEADER)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
}
