//! Every route.

use axum::Router;
use http::{Method, Uri};

use crate::error::Error;
use crate::server::Api;

/// The REST contract, under `/api/v1`.
pub(crate) fn public(api: Api) -> Router {
    Router::new().fallback(unknown).with_state(api)
}

/// What only the gateways call, under `/internal`: no rate limit, larger bodies, a token of its own.
pub(crate) fn internal(api: Api) -> Router {
    Router::new()
        .nest("/v1", crate::ingest::routes(api.clone()))
        .fallback(unknown)
        .with_state(api)
}

async fn unknown(method: Method, uri: Uri) -> Error {
    Error::NotFoundNamed(format!("Cannot {method} {uri}"))
}
