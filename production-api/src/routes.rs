//! Every route, and the one form of a path that the table has.

use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::Method;

use crate::api::Api;
use crate::error::Error;
use crate::path::SentUri;
use crate::resources::{machines, materials, mqtt, parts, prices, units};

/// Every fixed word of the table below; clients may write them in any case.
const WORDS: [&str; 20] = [
    "api",
    "v1",
    "materials",
    "many-materials",
    "part-informations",
    "prices",
    "many-prices",
    "part-information",
    "many-part-informations",
    "machine",
    "many-machines",
    "supply-chain",
    "stream",
    "many-supply-chain",
    "mqtt",
    "publish",
    "subscribe",
    "internal",
    "production",
    "production-swagger-spec.json",
];

/// Rewrites the path to the route table's form: the original ignored the case of fixed words and one slash at
/// the end.
pub(crate) fn normalise(mut request: Request) -> Request {
    let sent = request.uri().clone();
    let path = sent.path();
    let path = path
        .strip_suffix('/')
        .filter(|rest| !rest.is_empty())
        .unwrap_or(path);
    let words: Vec<&str> = path
        .split('/')
        .map(|segment| {
            WORDS
                .iter()
                .copied()
                .find(|word| word.eq_ignore_ascii_case(segment))
                .unwrap_or(segment)
        })
        .collect();
    let path = words.join("/");
    if path != sent.path() {
        let target = match sent.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        if let Ok(uri) = target.parse() {
            *request.uri_mut() = uri;
        }
    }
    request.extensions_mut().insert(SentUri(sent));
    request
}

/// The REST contract.
///
/// The original tried routes in order, so a method that a fixed path has not is asked of the path with an id:
/// `GET /materials/many-materials` is a material whose id is no number.
pub(crate) fn public(api: Api) -> Router {
    #[rustfmt::skip]
    let routes = Router::new()
        .route("/materials", get(materials::list).post(materials::create))
        .route("/materials/many-materials", post(materials::create_many).patch(materials::update_many)
            .delete(materials::delete_many).get(materials::get))
        .route("/materials/{id}", get(materials::get).patch(materials::update).delete(materials::delete))
        .route("/materials/{id}/part-informations", post(materials::link_parts).delete(materials::unlink_parts))
        .route("/materials/prices/{id}", get(prices::list).post(prices::set).delete(prices::delete))
        .route("/materials/prices/{id}/many-prices", post(prices::set_many).delete(prices::delete_many))
        .route("/part-information", get(parts::list).post(parts::create))
        .route("/part-information/many-part-informations", post(parts::create_many).patch(parts::update_many)
            .delete(parts::delete_many).get(parts::get))
        .route("/part-information/{id}", get(parts::get).patch(parts::update).delete(parts::delete))
        .route("/part-information/{id}/materials", post(parts::link_materials).delete(parts::unlink_materials))
        .route("/machine", get(machines::list).post(machines::create))
        .route("/machine/many-machines", post(machines::create_many).delete(machines::delete_many)
            .get(machines::get))
        .route("/machine/{id}", get(machines::get).delete(machines::delete))
        .route("/supply-chain", get(units::list).post(units::create))
        .route("/supply-chain/many-supply-chain", post(units::create_many).patch(units::update_many)
            .get(units::get))
        .route("/supply-chain/stream", get(units::stream).patch(units::update))
        .route("/supply-chain/{id}", get(units::get).patch(units::update))
        .route("/mqtt/publish", post(mqtt::publish))
        .route("/mqtt/subscribe", get(mqtt::subscribe));
    Router::new()
        .nest("/api/v1", routes)
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(api)
}

/// What only the gateways call, under `/internal`: no rate limit, larger bodies, a token of its own.
pub(crate) fn internal(api: Api) -> Router {
    Router::new()
        .nest("/v1", crate::ingest::routes(api.clone()))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(api)
}

pub(crate) async fn unknown(method: Method, Extension(SentUri(uri)): Extension<SentUri>) -> Error {
    Error::NotFoundNamed(format!("Cannot {method} {uri}"))
}
