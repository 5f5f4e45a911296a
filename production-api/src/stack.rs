//! Every layer that a request passes, in order.

use std::time::Duration;

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use http::{HeaderName, StatusCode};
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::trace::TraceLayer;
use uuid::Uuid;

use crate::error::{Error, shape_a};
use crate::routes;
use crate::server::{Api, Stack};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The stack, outermost layer first. The client's real address is already in the request's extensions.
pub(crate) fn build(api: &Api) -> Stack {
    let router = Router::new()
        .nest("/internal", routes::internal(api.clone()))
        .fallback_service(routes::public(api.clone()));
    let stack = ServiceBuilder::new()
        // One body type for the connection, whatever the layers below wrapped it in.
        .map_response(|response: http::Response<_>| response.map(Body::new))
        // A name for the request, the caller's own where it sent one, for both sides' logs.
        .layer(SetRequestIdLayer::new(REQUEST_ID, FreshId))
        // One span per request, so that everything below logs under that name.
        .layer(TraceLayer::new_for_http())
        // The name goes back, also on errors made below.
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        // A bug answers 500 to one client and ends nothing else.
        .layer(CatchPanicLayer::custom(|_| internal_error()))
        // The next three end in an error; here it becomes an answer.
        .layer(HandleErrorLayer::new(overloaded))
        // More than the limit is refused at once: waiting would only move the queue into memory.
        .load_shed()
        .concurrency_limit(api.config.max_requests_in_flight)
        // Nobody waits for a stuck database longer than this.
        .timeout(Duration::from_millis(api.config.request_timeout_ms))
        .service(router);
    BoxCloneSyncService::new(stack)
}

#[derive(Debug, Clone, Copy)]
struct FreshId;

impl MakeRequestId for FreshId {
    fn make_request_id<B>(&mut self, _request: &http::Request<B>) -> Option<RequestId> {
        let id = Uuid::now_v7().to_string();
        id.parse().ok().map(RequestId::new)
    }
}

fn internal_error() -> Response {
    shape_a(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
}

async fn overloaded(error: BoxError) -> Response {
    if error.is::<tower::timeout::error::Elapsed>() {
        Error::TimedOut.into_response()
    } else {
        Error::Overloaded.into_response()
    }
}
