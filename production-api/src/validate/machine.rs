//! Bodies of `/machine`. The original took them as they came, without a schema.

use super::{Read, whole};
use crate::error::Error;
use crate::js::Js;

/// How many machines to create: what `Array.from({length: quantity})` made of the value, at most `most`.
pub(crate) fn quantity(body: &Js, most: u32) -> Read<u32> {
    let value = body.get("quantity").filter(|value| value.is_truthy());
    let Some(number) = value
        .map(Js::to_number)
        .filter(|number| !matches!(*number, n if n <= 0.0))
    else {
        return Err(Error::Refused("Quantity must be a positive number".into()));
    };
    if number > f64::from(most) {
        return Err(Error::Refused(format!(
            "Quantity must not be greater than {most}"
        )));
    }
    // NaN is none.
    Ok(number as u32)
}

/// The machines to delete: at least one.
pub(crate) fn delete_many(body: &Js) -> Read<Vec<i32>> {
    const NAME: &str = "machineIds";
    let refused = |problem: &str| Err(Error::Fields(vec![problem.to_owned()]));
    let items = match body.get(NAME) {
        Some(Js::List(items)) => items.as_slice(),
        // One id alone was taken too.
        Some(one @ (Js::Number(_) | Js::Text(_))) => std::slice::from_ref(one),
        _ => return refused("machineIds must be an array"),
    };
    if items.is_empty() {
        return refused("machineIds should not be empty");
    }
    let is_id =
        |item: &&Js| matches!(item, Js::Number(_)) || matches!(item, Js::Text(text) if !text.is_empty());
    match items
        .iter()
        .map(|item| Some(item).filter(is_id).and_then(whole))
        .collect()
    {
        Some(ids) => Ok(ids),
        None => refused(&format!(
            "each value in machineIds must be an integer number of at most {}",
            i32::MAX
        )),
    }
}
