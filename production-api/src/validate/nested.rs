//! A body whose one field is a list of objects.

use super::{Faults, Object, Read};
use crate::error::Error;
use crate::js::Js;

/// A valid list of objects, or what passed the original's rules without being one.
#[derive(Debug, PartialEq)]
pub(super) enum Nested<T> {
    List(Vec<T>),
    /// An item is a list of its own.
    ListOfLists,
    /// Missing, or one object.
    NoList,
}

/// Reads `body`'s only field `name`, each item with the fields `known` by `read`.
///
/// The faults of items hide those of the list itself, as in the original.
pub(super) fn each<T>(
    body: &Js,
    name: &str,
    must_be_array: bool,
    known: &[&str],
    read: impl Fn(&mut Object<'_>) -> Option<T>,
) -> Read<Nested<T>> {
    let mut faults = Faults::new();
    Object::open(body, String::new(), &[name], &mut faults);
    let value = body.get(name);
    let mut own = Faults::new();
    if must_be_array && !matches!(value, Some(Js::List(_))) {
        own.push(format!("{name} must be an array"));
    }
    let mut items = Items {
        name,
        known,
        read,
        faults: Faults::new(),
        values: Vec::new(),
        has_list: false,
    };
    match value {
        None => {}
        Some(Js::List(list)) => items.list(list, name),
        Some(object @ Js::Map(_)) => items.object(object, name),
        Some(_) => own.push(items.no_object()),
    }
    faults.extend(if items.faults.is_empty() {
        own
    } else {
        items.faults
    });
    if !faults.is_empty() {
        return Err(Error::Fields(faults));
    }
    Ok(match value {
        Some(Js::List(_)) if items.has_list => Nested::ListOfLists,
        Some(Js::List(_)) => Nested::List(items.values),
        _ => Nested::NoList,
    })
}

struct Items<'a, T, R> {
    name: &'a str,
    known: &'a [&'a str],
    read: R,
    faults: Faults,
    values: Vec<T>,
    has_list: bool,
}

impl<T, R: Fn(&mut Object<'_>) -> Option<T>> Items<'_, T, R> {
    fn no_object(&self) -> String {
        format!(
            "each value in nested property {} must be either object or array",
            self.name
        )
    }

    fn list(&mut self, list: &[Js], path: &str) {
        for (index, item) in list.iter().enumerate() {
            let item_path = format!("{path}.{index}");
            match item {
                Js::Map(_) => self.object(item, &item_path),
                // Depth is bounded by the JSON reader.
                Js::List(inner) => {
                    self.has_list = true;
                    self.list(inner, &item_path);
                }
                _ => self.faults.push(format!("{path}.{}", self.no_object())),
            }
        }
    }

    fn object(&mut self, value: &Js, path: &str) {
        let mut object = Object::open(value, format!("{path}."), self.known, &mut self.faults);
        if let Some(read) = (self.read)(&mut object) {
            self.values.push(read);
        }
    }
}

/// Reads `{name: [{id}, …]}`, as many-deletes have it: at least one.
pub(super) fn delete_many(body: &Js, name: &str) -> Read<Vec<i32>> {
    match each(body, name, true, &["id"], |object| object.id())? {
        Nested::List(ids) if !ids.is_empty() => Ok(ids),
        Nested::List(_) => Err(Error::Fields(vec![format!("{name} should not be empty")])),
        Nested::ListOfLists => Err(Error::Fields(vec![format!(
            "each value in {name} must be an object"
        )])),
        Nested::NoList => Err(Error::Fields(vec![format!("{name} must be an array")])),
    }
}
