//! `/part-information`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
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

pub(crate) async fn create(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let part = validate::create(&body)?;
    let written = api.store.create_parts(&[part]).await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn create_many(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let parts = validate::create_many(&body)?;
    Ok(reply::created(&api.store.create_parts(&parts).await?))
}

pub(crate) async fn update(
    State(api): State<Api>,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let change = validate::update(&body)?;
    let (written, now) = api.store.update_part(param.id()?, change, &conditions).await?;
    reply::changed(&written, &now)
}

pub(crate) async fn update_many(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let changes = validate::update_many(&body)?;
    Ok(reply::ok(&api.store.update_parts(&changes).await?))
}

pub(crate) async fn delete(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    api.store.delete_part(param.id()?, &conditions).await?;
    Ok(reply::no_content())
}

pub(crate) async fn delete_many(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let ids = validate::delete_many(&body)?;
    api.store.delete_parts(&ids).await?;
    Ok(reply::no_content())
}

pub(crate) async fn link_materials(State(api): State<Api>, param: Param, Payload(body): Payload) -> Answer {
    let material_ids = validate::links(&body)?;
    Ok(reply::created(
        &api.store.link_materials(param.id()?, &material_ids).await?,
    ))
}

pub(crate) async fn unlink_materials(State(api): State<Api>, param: Param, Payload(body): Payload) -> Answer {
    let material_ids = validate::links(&body)?;
    api.store.unlink_materials(param.id()?, &material_ids).await?;
    Ok(reply::no_content())
}
