//! Bodies of `/materials`.

use super::nested::{Nested, delete_many as ids, each};
use super::{Object, Read, Text, id_list, one};
use crate::error::Error;
use crate::js::Js;

/// A change of one of many materials.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MaterialChange {
    pub(crate) id: i32,
    pub(crate) name: Option<String>,
}

pub(crate) fn create(body: &Js) -> Read<String> {
    one(body, &["name"], required_name)
}

pub(crate) fn create_many(body: &Js) -> Read<Vec<String>> {
    match each(body, "materials", false, &["name"], required_name)? {
        Nested::List(names) => Ok(names),
        Nested::NoList => Err(Error::Fields(vec!["materials must be an array".into()])),
        // The original looked for the name of the inner list, `undefined`, and found every material.
        Nested::ListOfLists => Err(Error::Conflict("These materials already exist: ".into())),
    }
}

pub(crate) fn update(body: &Js) -> Read<Option<String>> {
    one(body, &["name"], |object| match object.text("name") {
        Text::Missing => Some(None),
        _ => required_name(object).map(Some),
    })
}

pub(crate) fn update_many(body: &Js) -> Read<Vec<MaterialChange>> {
    let read = |object: &mut Object<'_>| {
        let id = object.id();
        let text = object.text("name");
        if text == Text::Missing {
            return Some(MaterialChange { id: id?, name: None });
        }
        if !text.is_text() {
            object.fault("name must be a string");
        }
        let name = object.storable("name", &text);
        Some(MaterialChange {
            id: id?,
            name: Some(name?),
        })
    };
    match each(body, "materials", true, &["id", "name"], read)? {
        Nested::List(changes) => Ok(changes),
        _ => Err(Error::Fields(vec![
            "each value in materials must be an object".into(),
        ])),
    }
}

pub(crate) fn delete_many(body: &Js) -> Read<Vec<i32>> {
    ids(body, "materials")
}

/// The parts to link a material with, or to unlink.
pub(crate) fn links(body: &Js) -> Read<Vec<i32>> {
    id_list(body, "partInformationIds")
}

fn required_name(object: &mut Object<'_>) -> Option<String> {
    let text = object.text("name");
    if !text.is_text() {
        object.fault("name must be a string");
    }
    if text.is_empty() {
        object.fault("name should not be empty");
    }
    object.storable("name", &text)
}
