//! `/machine`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::idempotency::Once;
use crate::paging::Query;
use crate::path::Param;
use crate::reply;
use crate::validate::machine as validate;

pub(crate) async fn list(State(api): State<Api>, query: Query, conditions: Conditions) -> Answer {
    let Some(page) = query.page_of("/machine", api.config.max_page_rows)? else {
        return reply::list(&conditions, api.store.machines().await?).await;
    };
    let rows = api.store.machines_page(&page).await?;
    reply::page(&conditions, &page, rows, |row| row.id)
}

pub(crate) async fn get(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    reply::representation(&conditions, &api.store.machine(param.id()?).await?)
}

/// The body says nothing, whatever it is.
pub(crate) async fn create(State(api): State<Api>, once: Once) -> Answer {
    let written = once.row(&api).create_machines(1).await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn create_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let quantity = validate::quantity(&body, api.config.max_machines_per_request)?;
    Ok(reply::created(&once.rows(&api).create_machines(quantity).await?))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
) -> Answer {
    once.nothing(&api)
        .delete_machine(param.id()?, &conditions)
        .await?;
    Ok(reply::no_content())
}

pub(crate) async fn delete_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let ids = validate::delete_many(&body)?;
    once.nothing(&api).delete_machines(ids).await?;
    Ok(reply::no_content())
}
