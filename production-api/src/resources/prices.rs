//! `/materials/prices`

use axum::extract::State;

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::conditions::Conditions;
use crate::idempotency::Once;
use crate::path::Param;
use crate::reply;
use crate::validate::price as validate;

pub(crate) async fn list(State(api): State<Api>, param: Param, conditions: Conditions) -> Answer {
    reply::representation(&conditions, &api.store.prices(param.id()?).await?)
}

pub(crate) async fn set(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let price = validate::create(&body)?;
    let written = once
        .row(&api)
        .set_prices(param.id()?, &[price], &conditions)
        .await?;
    Ok(reply::created(&written.first()))
}

pub(crate) async fn set_many(
    State(api): State<Api>,
    once: Once,
    param: Param,
    Payload(body): Payload,
) -> Answer {
    let prices = validate::create_many(&body)?;
    let unconditional = Conditions::default();
    let written = once
        .rows(&api)
        .set_prices(param.id()?, &prices, &unconditional)
        .await?;
    Ok(reply::created(&written))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    once: Once,
    param: Param,
    conditions: Conditions,
    Payload(body): Payload,
) -> Answer {
    let price = validate::delete(&body)?;
    once.nothing(&api)
        .delete_prices(param.id()?, &[price], &conditions)
        .await?;
    Ok(reply::no_content())
}

pub(crate) async fn delete_many(
    State(api): State<Api>,
    once: Once,
    param: Param,
    Payload(body): Payload,
) -> Answer {
    let prices = validate::delete_many(&body)?;
    let unconditional = Conditions::default();
    once.nothing(&api)
        .delete_prices(param.id()?, &prices, &unconditional)
        .await?;
    Ok(reply::no_content())
}
