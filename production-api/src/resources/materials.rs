//! `/materials`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::idempotency::Once;
use crate::paging::Query;
use crate::path::Param;
use crate::reply;
use crate::validate::material as validate;

pub(crate) async fn list(State(api): State<Api>, query: Query, conditions: Conditions) -> Answer {
    let Some(page) = query.page_of("/materials", api.config.max_page_rows)? else {
        return reply::list(&conditions, api.store.materials().await?).await;
    };
    let rows = api.store.materials_page(&page).await?;
    reply::page(&conditions, &page, rows, |row| row.id)
}

pub(crate) async fn get(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    reply::representation(&conditions, &api.store.material(param.id()?).await?)
}

pub(crate) async fn create(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let name = validate::create(&body)?;
    Ok(reply::created(&once.row(&api).create_material(name).await?))
}

pub(crate) async fn create_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let names = validate::create_many(&body)?;
    Ok(reply::created(&once.rows(&api).create_materials(&names).await?))
}

pub(crate) async fn update(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let name = validate::update(&body)?;
    let written = once
        .row(&api)
        .update_material(param.id()?, name, &conditions)
        .await?;
    reply::changed(&written, &written.entity)
}

pub(crate) async fn update_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let changes = validate::update_many(&body)?;
    Ok(reply::ok(&once.rows(&api).update_materials(&changes).await?))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
) -> Answer {
    once.nothing(&api)
        .delete_material(param.id()?, &conditions)
        .await?;
    Ok(reply::no_content())
}

pub(crate) async fn delete_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let ids = validate::delete_many(&body)?;
    once.nothing(&api).delete_materials(&ids).await?;
    Ok(reply::no_content())
}

pub(crate) async fn link_parts(
    State(api): State<Api>,
    once: Once,
    param: Param,
    Payload(body): Payload,
) -> Answer {
    let part_ids = validate::links(&body)?;
    Ok(reply::created(
        &once.row(&api).link_parts(param.id()?, &part_ids).await?,
    ))
}

pub(crate) async fn unlink_parts(
    State(api): State<Api>,
    once: Once,
    param: Param,
    Payload(body): Payload,
) -> Answer {
    let part_ids = validate::links(&body)?;
    once.nothing(&api).unlink_parts(param.id()?, &part_ids).await?;
    Ok(reply::no_content())
}
