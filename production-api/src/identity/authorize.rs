//! The caller's role against the operation's.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

use super::authenticate::forbidden;
use super::{Caller, required};

/// The prefix of every route of the contract.
const BASE: &str = "/api/v1";

/// Behind the router's match. Without a [`Caller`] identity is off, and everybody may do everything.
pub(crate) async fn authorize(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let Some(caller) = extensions.get::<Caller>() else {
        return next.run(request).await;
    };
    let route = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let needed = required(request.method(), route.strip_prefix(BASE).unwrap_or(route));
    if caller.role < Some(needed) {
        return forbidden(needed);
    }
    next.run(request).await
}
