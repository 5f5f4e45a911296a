//! `/materials/prices`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::path::Param;
use crate::reply;
use crate::validate::price as validate;

pub(crate) async fn list(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    reply::representation(&conditions, &api.store.prices(param.id()?).await?)
}

pub(crate) async fn set(
    State(api): State<Api>,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let price = validate::create(&body)?;
    let written = api.store.set_prices(param.id()?, &[price], &conditions).await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn set_many(State(api): State<Api>, param: Param, Payload(body): Payload) -> Answer {
    let prices = validate::create_many(&body)?;
    let unconditional = Conditions::default();
    let written = api.store.set_prices(param.id()?, &prices, &unconditional).await?;
    Ok(reply::created(&written))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let price = validate::delete(&body)?;
    api.store
        .delete_prices(param.id()?, &[price], &conditions)
        .await?;
    Ok(reply::no_content())
}

pub(crate) async fn delete_many(State(api): State<Api>, param: Param, Payload(body): Payload) -> Answer {
    let prices = validate::delete_many(&body)?;
    let unconditional = Conditions::default();
    api.store
        .delete_prices(param.id()?, &prices, &unconditional)
        .await?;
    Ok(reply::no_content())
}
