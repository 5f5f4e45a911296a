//! Every layer that a request passes, in order.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use http::{HeaderName, Method, StatusCode};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::BoxCloneSyncService;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

use crate::api::Api;
use crate::error::Error;
use crate::failures::{self, FailureLog};
use crate::rate_limit::RateLimit;
use crate::request_id::{self, FreshId};
use crate::{
    body, conditions, encoding, idempotency, identity, metrics, openapi, problem, rate_limit, routes,
};

/// What scripts of another origin may read beyond the few that every answer shows: every header that says more than
/// the body, in lower case.
const EXPOSED: [&str; 12] = [
    "date",
    "etag",
    "idempotency-replayed",
    "link",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "www-authenticate",
    "x-ratelimit-limit",
    "x-request-id",
    "x-retry-remaining",
    "x-retry-reset",
];

/// The whole service behind the connections.
pub(crate) type Stack = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The stack, outermost layer first. The client's real address is already in the request's extensions.
pub(crate) fn build(api: &Api) -> Stack {
    let stack = ServiceBuilder::new()
        // One body type for the connection, whatever the layers below wrapped it in.
        .map_response(|response: http::Response<_>| response.map(Body::new))
        // A name for the request, the caller's own where it sent one, for both sides' logs.
        .map_request(request_id::forget_unfit)
        .layer(SetRequestIdLayer::new(request_id::HEADER, FreshId))
        // One span per request, so that everything below logs under that name. `failures` says what failed.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_failure(()),
        )
        // The name goes back, also on errors made below.
        .layer(PropagateRequestIdLayer::new(request_id::HEADER))
        // Browsers of any origin may call, as they could the original; its preflights were 204.
        .map_response(no_content_for_preflights)
        .layer(cors())
        // Long answers in gzip, where the client takes it, each with a tag of its own.
        .layer(from_fn(encoding::negotiate))
        .layer(encoding::compression())
        // What failed, in the log: a bug each time, an outage at intervals.
        .layer(from_fn_with_state(FailureLog::default(), failures::log))
        // Errors as problem details, where the client asks for them.
        .layer(from_fn(problem::negotiate))
        // A bug answers 500 to one client and ends nothing else.
        .layer(CatchPanicLayer::custom(|_| Error::Internal.into_response()))
        // The next one ends in an error; here it becomes an answer.
        .layer(HandleErrorLayer::new(overloaded))
        // Nobody waits for a stuck database longer than this.
        .timeout(Duration::from_millis(api.config.request_timeout_ms))
        // Any case, one slash too many: the route table has one form of each path.
        .map_request(routes::normalise)
        .service(
            Router::new()
                .nest("/internal", in_flight(routes::internal(api.clone()), api))
                .merge(openapi::ui::routes(openapi::Limits::of(&api.config)))
                .fallback_service(in_flight(public(api), api)),
        );
    BoxCloneSyncService::new(stack)
}

/// More than the limit is refused at once: waiting would only move the queue into memory. Clients and gateways have
/// their own places, so that clients whose bodies trickle in keep no gateway out.
fn in_flight(router: Router, api: &Api) -> Router {
    let limit = GlobalConcurrencyLimitLayer::new(api.config.max_requests_in_flight);
    router.layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .load_shed()
            .layer(limit),
    )
}

/// What the REST contract adds, outermost first.
fn public(api: &Api) -> Router {
    let limit = RateLimit::new(api.config.rate_limit.clone());
    let authenticate = api.identity.clone();
    let authenticate = authenticate.map(|known| from_fn_with_state(known, identity::authenticate));
    let layers = ServiceBuilder::new()
        // Strangers are refused before their bodies are read.
        .option_layer(authenticate)
        // A body that is too large or no JSON is refused on any route.
        .layer(from_fn_with_state(api.clone(), body::read))
        // The original counted a request once its body was read, whatever became of it then.
        .layer(from_fn_with_state(limit, rate_limit::limit));
    routes::public(api.clone())
        // Behind the router's match, innermost first.
        .route_layer(from_fn(conditions::refuse_elsewhere))
        // A write that was done is answered again, whatever its conditions say by now.
        .route_layer(from_fn_with_state(api.clone(), idempotency::replay))
        .route_layer(from_fn(identity::authorize))
        // The label is the route and not the path.
        .route_layer(from_fn(measure))
        .layer(layers)
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::PATCH,
            Method::POST,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
}

/// The CORS layer answers every OPTIONS request itself, with 200.
fn no_content_for_preflights<B>(mut response: http::Response<B>) -> http::Response<B> {
    if response
        .headers()
        .contains_key(http::header::ACCESS_CONTROL_ALLOW_METHODS)
    {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

async fn measure(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str)
        .to_owned();
    let (method, began) = (request.method().clone(), Instant::now());
    let response = next.run(request).await;
    metrics::answered(
        &method,
        route,
        response.status().as_u16(),
        began.elapsed().as_secs_f64(),
    );
    response
}

fn request_span(request: &http::Request<Body>) -> tracing::Span {
    let id = request_id::of(request.headers());
    // Known once the token is proven.
    let user = tracing::field::Empty;
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id, user)
}

async fn overloaded(error: BoxError) -> Response {
    if error.is::<tower::timeout::error::Elapsed>() {
        Error::TimedOut.into_response()
    } else {
        Error::Overloaded.into_response()
    }
}
