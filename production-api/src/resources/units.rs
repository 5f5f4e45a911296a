//! `/supply-chain`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::path::Param;
use crate::reply;
use crate::validate::unit as validate;

pub(crate) async fn list(State(api): State<Api>, conditions: Conditions) -> Answer {
    reply::list(&conditions, api.store.units().await?).await
}

pub(crate) async fn get(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    let (id, sent) = param.unit_id()?;
    reply::representation(&conditions, &api.store.unit(id, sent).await?)
}

pub(crate) async fn create(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let unit = validate::create(&body)?;
    let written = api.store.create_units(vec![unit]).await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn create_many(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let units = validate::create_many(&body)?;
    Ok(reply::created(&api.store.create_units(units).await?))
}

pub(crate) async fn update(
    State(api): State<Api>,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let change = validate::update(&body)?;
    let (id, sent) = param.unit_id()?;
    let (written, now) = api
        .store
        .update_unit((id, sent.to_owned(), change), &conditions)
        .await?;
    reply::changed(&written, &now)
}

pub(crate) async fn update_many(State(api): State<Api>, Payload(body): Payload) -> Answer {
    let changes = validate::update_many(&body)?;
    Ok(reply::ok(&api.store.update_units(changes).await?))
}
