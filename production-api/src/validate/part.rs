//! Bodies of `/part-information`.

use super::nested::{Nested, delete_many as ids, each};
use super::{Number, Object, Read, id_list, one};
use crate::error::Error;
use crate::js::Js;

const FIELDS: [&str; 2] = ["defaultPrice", "timeToProduce"];

/// A part to create.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewPart {
    pub(crate) default_price: f64,
    /// In seconds.
    pub(crate) time_to_produce: i32,
}

/// What changes of a part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PartChange {
    pub(crate) default_price: Option<f64>,
    pub(crate) time_to_produce: Option<i32>,
}

pub(crate) fn create(body: &Js) -> Read<NewPart> {
    one(body, &FIELDS, new_part)
}

pub(crate) fn create_many(body: &Js) -> Read<Vec<NewPart>> {
    list(each(body, "partInformations", false, &FIELDS, new_part)?)
}

pub(crate) fn update(body: &Js) -> Read<PartChange> {
    one(body, &FIELDS, change)
}

/// Ids with their changes.
pub(crate) fn update_many(body: &Js) -> Read<Vec<(i32, PartChange)>> {
    let read = |object: &mut Object<'_>| {
        let (id, change) = (object.id(), change(object));
        Some((id?, change?))
    };
    list(each(
        body,
        "partInformations",
        false,
        &["id", "defaultPrice", "timeToProduce"],
        read,
    )?)
}

pub(crate) fn delete_many(body: &Js) -> Read<Vec<i32>> {
    ids(body, "partInformations")
}

/// The materials to link a part with, or to unlink.
pub(crate) fn links(body: &Js) -> Read<Vec<i32>> {
    id_list(body, "materialIds")
}

fn list<T>(nested: Nested<T>) -> Read<Vec<T>> {
    match nested {
        Nested::List(parts) => Ok(parts),
        Nested::NoList => Err(Error::Refused(
            "Invalid input data. \"partInformation\" should be an array of part information data.".into(),
        )),
        Nested::ListOfLists => Err(Error::Fields(vec![
            "each value in partInformations must be an object".into(),
        ])),
    }
}

fn new_part(object: &mut Object<'_>) -> Option<NewPart> {
    let (price, time) = (default_price(object), time_to_produce(object));
    Some(NewPart {
        default_price: price?,
        time_to_produce: time?,
    })
}

/// A missing field stays as it is; null is refused, since no part is without a price or a time.
fn change(object: &mut Object<'_>) -> Option<PartChange> {
    let price = match object.number("defaultPrice") {
        Number::Missing => Some(None),
        _ => default_price(object).map(Some),
    };
    let time = match object.number("timeToProduce") {
        Number::Missing => Some(None),
        _ => time_to_produce(object).map(Some),
    };
    Some(PartChange {
        default_price: price?,
        time_to_produce: time?,
    })
}

fn default_price(object: &mut Object<'_>) -> Option<f64> {
    let price = object.number("defaultPrice");
    if !price.is_at_least(0.0) {
        object.fault("The default price must be a non-negative number.");
    }
    if price.finite().is_none() {
        object.fault("Price must be a floating point number");
    }
    price.finite()
}

fn time_to_produce(object: &mut Object<'_>) -> Option<i32> {
    let time = object.number("timeToProduce");
    if time.is_absent() {
        object.fault("The time to produce is required.");
    }
    if !time.is_at_least(1.0) {
        object.fault("The time to produce must be a positive number.");
        if time.finite().is_none() {
            object.fault("timeToProduce must be a number conforming to the specified constraints");
        }
        return None;
    }
    if time.finite().is_none() {
        object.fault("timeToProduce must be a number conforming to the specified constraints");
    }
    object.integer("timeToProduce", &time)
}
