//! `/api/v1/production` and what lies under it.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;
use utoipa_swagger_ui::Config;

use super::Limits;
use crate::error::Error;
use crate::{reply, routes};

const PAGE: &str = "/api/v1/production";
const DOCUMENT: &str = "/api/v1/production/production-swagger-spec.json";

/// The document and Swagger UI. Reading them is not counted by the rate limit.
pub(crate) fn routes(limits: Limits) -> Router {
    Router::new()
        .route(PAGE, get(|| async { file("index.html") }))
        .route(
            DOCUMENT,
            get(move || async move { reply::ok(&super::document(limits)) }),
        )
        .route(
            &format!("{PAGE}/{{file}}"),
            get(|Path(name): Path<String>| async move { file(&name) }),
        )
        .method_not_allowed_fallback(routes::unknown)
}

fn file(name: &str) -> Response {
    match utoipa_swagger_ui::serve(name, Arc::new(Config::from(DOCUMENT))) {
        Ok(Some(file)) => {
            let mut bytes = file.bytes.into_owned();
            if name == "index.html" {
                // The page has no slash at the end, so its relative addresses need a base.
                let page = String::from_utf8_lossy(&bytes);
                bytes = page
                    .replace("<head>", &format!("<head><base href=\"{PAGE}/\">"))
                    .into_bytes();
            }
            ([(header::CONTENT_TYPE, file.content_type)], bytes).into_response()
        }
        Ok(None) => Error::NotFoundNamed(format!("Cannot GET {PAGE}/{name}")).into_response(),
        Err(error) => {
            tracing::error!(error = error.as_ref(), name, "Swagger UI could not serve a file");
            Error::Internal.into_response()
        }
    }
}
