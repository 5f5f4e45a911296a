//! `/part-information`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::idempotency::Once;
use crate::paging::Query;
use crate::path::Param;
use crate::reply;
use crate::validate::part as validate;

pub(crate) async fn list(State(api): State<Api>, query: Query, conditions: Conditions) -> Answer {
    let Some(page) = query.page_of("/part-information", api.config.max_page_rows)? else {
        return reply::list(&conditions, api.store.parts().await?).await;
    };
    let rows = api.store.parts_page(&page).await?;
    reply::page(&conditions, &page, rows, |row| row.id)
}

pub(crate) async fn get(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    reply::representation(&conditions, &api.store.part(param.id()?).await?)
}

pub(crate) async fn create(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let part = validate::create(&body)?;
    let written = once.row(&api).create_parts(&[part]).await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn create_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let parts = validate::create_many(&body)?;
    Ok(reply::created(&once.rows(&api).create_parts(&parts).await?))
}

pub(crate) async fn update(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let change = validate::update(&body)?;
    let (written, now) = once
        .row(&api)
        .update_part(param.id()?, change, &conditions)
        .await?;
    reply::changed(&written, &now)
}

pub(crate) async fn update_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let changes = validate::update_many(&body)?;
    Ok(reply::ok(&once.rows(&api).update_parts(&changes).await?))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
) -> Answer {
    once.nothing(&api).delete_part(param.id()?, &conditions).await?;
    Ok(reply::no_content())
}

pub(crate) async fn delete_many(State(api): State<Api>, once: Once, Payload(body): Payload) -> Answer {
    let ids = validate::delete_many(&body)?;
    once.nothing(&api).delete_parts(&ids).await?;
    Ok(reply::no_content())
}

pub(crate) async fn link_materials(
    State(api): State<Api>,
    once: Once,
    param: Param,
    Payload(body): Payload,
) -> Answer {
    let material_ids = validate::links(&body)?;
    Ok(reply::created(
        &once.row(&api).link_materials(param.id()?, &material_ids).await?,
    ))
}

pub(crate) async fn unlink_materials(
    State(api): State<Api>,
    once: Once,
    param: Param,
    Payload(body): Payload,
) -> Answer {
    let material_ids = validate::links(&body)?;
    once.nothing(&api)
        .unlink_materials(param.id()?, &material_ids)
        .await?;
    Ok(reply::no_content())
}
