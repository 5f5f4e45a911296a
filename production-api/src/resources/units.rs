//! `/supply-chain`

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::Sse;
use http::HeaderMap;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::cursor::UnitKey;
use crate::error::Error;
use crate::idempotency::Once;
use crate::paging::Query;
use crate::path::Param;
use crate::reply;
use crate::validate::unit as validate;
use crate::validate::unit_filter::{self, UnitFilter};

pub(crate) async fn list(State(api): State<Api>, query: Query, conditions: Conditions) -> Answer {
    let Some(mut asked) = query.of("/supply-chain", &unit_filter::NAMES) else {
        return reply::list(&conditions, api.store.units().await?).await;
    };
    let filter = UnitFilter::read(&mut asked);
    let page = asked.page(api.config.max_page_rows);
    asked.check()?;
    let Some(page) = page else {
        return reply::list(&conditions, api.store.chosen_units(&filter).await?).await;
    };
    let rows = api.store.units_page(&filter, &page).await?;
    reply::page(&conditions, &page, rows, |unit| UnitKey {
        time_s: unit.time_of_production.to_stored(),
        id: unit.id,
    })
}

/// Units as they change.
pub(crate) async fn stream(State(api): State<Api>, query: Query, headers: HeaderMap) -> Answer {
    let mut asked = query.exactly("/supply-chain/stream", &unit_filter::NAMES_OF_STREAM);
    let filter = UnitFilter::read(&mut asked);
    asked.check()?;
    let last_id = headers.get("last-event-id");
    let last_id = last_id.map(|id| String::from_utf8_lossy(id.as_bytes()));
    let streams = api.unit_streams.as_ref().ok_or(Error::Internal)?;
    Ok(Sse::new(streams.open(filter, last_id.as_deref()).await?).into_response())
}

pub(crate) async fn get(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    let (id, sent) = param.unit_id()?;
    reply::representation(&conditions, &api.store.unit(id, sent).await?)
}

pub(crate) async fn create(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let unit = validate::create(&body)?;
    let written = once.row(&api).create_units(vec![unit]).await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn create_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let units = validate::create_many(&body)?;
    Ok(reply::created(&once.rows(&api).create_units(units).await?))
}

pub(crate) async fn update(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let change = validate::update(&body)?;
    let (id, sent) = param.unit_id()?;
    let (written, now) = once
        .row(&api)
        .update_unit((id, sent.to_owned(), change), &conditions)
        .await?;
    reply::changed(&written, &now)
}

pub(crate) async fn update_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let changes = validate::update_many(&body)?;
    Ok(reply::ok(&once.rows(&api).update_units(changes).await?))
}
