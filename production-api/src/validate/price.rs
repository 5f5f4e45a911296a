//! Bodies of `/materials/prices`.

use super::nested::{Nested, each};
use super::price_date::PriceDate;
use super::{Object, Read, Text, one};
use crate::error::Error;
use crate::js::Js;

const FIELDS: [&str; 2] = ["price", "date"];

/// A price of a day: to store, or to find and delete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DatedPrice {
    pub(crate) price: f64,
    pub(crate) date: PriceDate,
    /// As the client wrote it, which is how it is echoed.
    pub(crate) date_as_sent: String,
}

pub(crate) fn create(body: &Js) -> Read<DatedPrice> {
    one(body, &FIELDS, dated_price)
}

pub(crate) fn create_many(body: &Js) -> Read<Vec<DatedPrice>> {
    match each(body, "prices", true, &FIELDS, dated_price)? {
        Nested::List(prices) => Ok(prices),
        _ => Err(Error::Fields(vec![
            "each value in prices must be an object".into(),
        ])),
    }
}

pub(crate) fn delete(body: &Js) -> Read<DatedPrice> {
    create(body)
}

pub(crate) fn delete_many(body: &Js) -> Read<Vec<DatedPrice>> {
    let prices = create_many(body)?;
    if prices.is_empty() {
        return Err(Error::Fields(vec!["prices should not be empty".into()]));
    }
    Ok(prices)
}

fn dated_price(object: &mut Object<'_>) -> Option<DatedPrice> {
    let number = object.number("price");
    if number.is_absent() {
        object.fault("price should not be empty");
    }
    if number.finite().is_none() {
        object.fault("Price must be a floating point number");
    }
    let text = object.text("date");
    // The original's date reader joined a list into one text, then refused the list for not being one.
    let date = match &text {
        Text::Value(text) => PriceDate::parse(text),
        Text::List(items) => PriceDate::parse(&items.join(",")),
        Text::Missing | Text::Null => None,
    };
    if date.is_none() {
        object.fault("Date must be a valid date string.");
    }
    if text.is_empty() {
        object.fault("date should not be empty");
    }
    if !text.is_text() {
        object.fault("date must be a string");
    }
    let date_as_sent = object.storable("date", &text);
    Some(DatedPrice {
        price: number.finite()?,
        date: date?,
        date_as_sent: date_as_sent?,
    })
}
