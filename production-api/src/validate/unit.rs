//! Bodies of `/supply-chain`.

use uuid::Uuid;

use super::nested::{Nested, each};
use super::{Number, Object, Read, Text, one};
use crate::error::Error;
use crate::js::{Js, date};
use crate::model::Instant;

const FIELDS: [&str; 9] = [
    "timeOfProduction",
    "order",
    "var1",
    "var2",
    "var3",
    "var4",
    "var5",
    "machineId",
    "partId",
];

/// A unit to store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewUnit {
    pub(crate) time_of_production: Instant,
    pub(crate) order: i32,
    pub(crate) var1: Option<i32>,
    pub(crate) var2: Option<String>,
    pub(crate) var3: Option<String>,
    pub(crate) var4: Option<i32>,
    pub(crate) var5: bool,
    pub(crate) machine_id: i32,
    pub(crate) part_id: i32,
}

/// What changes of a unit. The inner option of `var1` to `var4` is the new value, which may be none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnitChange {
    pub(crate) time_of_production: Option<Instant>,
    pub(crate) order: Option<i32>,
    pub(crate) var1: Option<Option<i32>>,
    pub(crate) var2: Option<Option<String>>,
    pub(crate) var3: Option<Option<String>>,
    pub(crate) var4: Option<Option<i32>>,
    pub(crate) var5: Option<bool>,
    pub(crate) machine_id: Option<i32>,
    pub(crate) part_id: Option<i32>,
}

pub(crate) fn create(body: &Js) -> Read<NewUnit> {
    one(body, &FIELDS, new_unit)
}

pub(crate) fn create_many(body: &Js) -> Read<Vec<NewUnit>> {
    list(each(body, "supplyChains", true, &FIELDS, new_unit)?)
}

pub(crate) fn update(body: &Js) -> Read<UnitChange> {
    one(body, &FIELDS, change)
}

/// Ids with their text as sent, and their changes.
pub(crate) fn update_many(body: &Js) -> Read<Vec<(Uuid, String, UnitChange)>> {
    let mut known = vec!["id"];
    known.extend(FIELDS);
    let read = |object: &mut Object<'_>| {
        let (id, change) = (unit_id(object), change(object));
        let (id, text) = id?;
        Some((id, text, change?))
    };
    list(each(body, "supplyChains", true, &known, read)?)
}

fn list<T>(nested: Nested<T>) -> Read<Vec<T>> {
    match nested {
        Nested::List(units) => Ok(units),
        _ => Err(Error::Fields(vec![
            "each value in supplyChains must be an object".into(),
        ])),
    }
}

fn unit_id(object: &mut Object<'_>) -> Option<(Uuid, String)> {
    let parsed = match object.text("id") {
        Text::Value(text) if text.len() == 36 => text.parse().ok().map(|id| (id, text)),
        _ => None,
    };
    if parsed.is_none() {
        object.fault("id must be a UUID");
    }
    parsed
}

fn new_unit(object: &mut Object<'_>) -> Option<NewUnit> {
    let time = time_of_production(object);
    let order = object.required_integer("order");
    let (var1, var2) = (number_or_none(object, "var1"), text_or_none(object, "var2"));
    let (var3, var4) = (text_or_none(object, "var3"), number_or_none(object, "var4"));
    let var5 = var5(object);
    let machine_id = object.required_integer("machineId");
    let part_id = object.required_integer("partId");
    Some(NewUnit {
        time_of_production: time?,
        order: order?,
        var1: var1?,
        var2: var2?,
        var3: var3?,
        var4: var4?,
        var5: var5?,
        machine_id: machine_id?,
        part_id: part_id?,
    })
}

fn change(object: &mut Object<'_>) -> Option<UnitChange> {
    let sent = |object: &Object<'_>, name: &str| object.field(name).is_some();
    let time = optional(object, sent(object, "timeOfProduction"), time_of_production);
    let order = optional(object, sent(object, "order"), |object| {
        object.required_integer("order")
    });
    let var1 = optional(object, sent(object, "var1"), |object| {
        number_or_none(object, "var1")
    });
    let var2 = optional(object, sent(object, "var2"), |object| {
        text_or_none(object, "var2")
    });
    let var3 = optional(object, sent(object, "var3"), |object| {
        text_or_none(object, "var3")
    });
    let var4 = optional(object, sent(object, "var4"), |object| {
        number_or_none(object, "var4")
    });
    let var5 = optional(object, sent(object, "var5"), var5);
    // The original took null for a missing id.
    let has_id = |object: &Object<'_>, name: &str| !object.number(name).is_absent();
    let machine_id = optional(object, has_id(object, "machineId"), |object| {
        object.required_integer("machineId")
    });
    let part_id = optional(object, has_id(object, "partId"), |object| {
        object.required_integer("partId")
    });
    Some(UnitChange {
        time_of_production: time?,
        order: order?,
        var1: var1?,
        var2: var2?,
        var3: var3?,
        var4: var4?,
        var5: var5?,
        machine_id: machine_id?,
        part_id: part_id?,
    })
}

/// `Some(None)` where the field was not sent, else what `read` makes of it.
fn optional<'a, T>(
    object: &mut Object<'a>,
    sent: bool,
    read: impl FnOnce(&mut Object<'a>) -> Option<T>,
) -> Option<Option<T>> {
    if sent { read(object).map(Some) } else { Some(None) }
}

fn time_of_production(object: &mut Object<'_>) -> Option<Instant> {
    let instant = match object.field("timeOfProduction") {
        Some(Js::Text(text)) => date::from_text(text),
        Some(value @ (Js::Number(_) | Js::Bool(_))) => date::from_number(value.to_number()),
        _ => None,
    };
    if instant.is_none() {
        object.fault("timeOfProduction must be a Date instance");
    }
    instant.map(Instant)
}

fn number_or_none(object: &mut Object<'_>, name: &str) -> Option<Option<i32>> {
    match object.number(name) {
        Number::Missing | Number::Null => Some(None),
        _ => object.required_integer(name).map(Some),
    }
}

fn text_or_none(object: &mut Object<'_>, name: &str) -> Option<Option<String>> {
    let text = object.text(name);
    match text {
        Text::Missing | Text::Null => Some(None),
        Text::Value(_) => object.storable(name, &text).map(Some),
        Text::List(_) => {
            object.fault(&format!("{name} must be a string"));
            None
        }
    }
}

/// Converted as JavaScript would, but for the text `false`, which would be true.
fn var5(object: &mut Object<'_>) -> Option<bool> {
    let value = match object.field("var5") {
        None | Some(Js::Null | Js::List(_)) => None,
        Some(Js::Text(text)) if text.trim().eq_ignore_ascii_case("false") => None,
        Some(value) => Some(value.is_truthy()),
    };
    if value.is_none() {
        object.fault("var5 must be a boolean value");
    }
    value
}
