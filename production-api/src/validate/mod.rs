//! Bodies to commands, with the original's texts for what is wrong with them.
//!
//! One file per resource says which fields there are, in the order of their faults; this file has the rules:
//! unknown fields are named first, every value is converted to its field's type as JavaScript would, and what
//! Postgres could not hold is refused here, with the field named.

pub(crate) mod machine;
pub(crate) mod material;
pub(crate) mod mqtt;
pub(crate) mod part;
pub(crate) mod price;
pub(crate) mod price_date;
pub(crate) mod unit;
pub(crate) mod unit_filter;

mod nested;

use crate::error::Error;
use crate::js::Js;

/// What was wrong, in the order in which the original said it.
type Faults = Vec<String>;

/// Outcome of reading a whole body.
type Read<T> = Result<T, Error>;

fn finish<T>(value: Option<T>, faults: Faults) -> Read<T> {
    match value {
        Some(value) if faults.is_empty() => Ok(value),
        _ => Err(Error::Fields(faults)),
    }
}

/// Reads a body that is one object with the fields `known`.
fn one<T>(body: &Js, known: &[&str], read: impl FnOnce(&mut Object<'_>) -> Option<T>) -> Read<T> {
    let mut faults = Faults::new();
    let value = read(&mut Object::open(body, String::new(), known, &mut faults));
    finish(value, faults)
}

/// Names that every JavaScript object has. The original's conversion skipped them, known or not.
const INHERITED: [&str; 12] = [
    "__proto__",
    "constructor",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// One object of a body, and where its faults go.
struct Object<'a> {
    value: &'a Js,
    /// Path of this object, with a dot at the end unless it is the body.
    prefix: String,
    faults: &'a mut Faults,
}

impl<'a> Object<'a> {
    /// Starts reading `value`: names its unknown fields.
    fn open(value: &'a Js, prefix: String, known: &[&str], faults: &'a mut Faults) -> Self {
        let mut object = Self {
            value,
            prefix,
            faults,
        };
        match value {
            Js::Map(fields) => {
                for (name, _) in fields {
                    if !known.contains(&name.as_str()) && !INHERITED.contains(&name.as_str()) {
                        object.fault(&format!("property {name} should not exist"));
                    }
                }
            }
            Js::List(items) => {
                for index in 0..items.len() {
                    object.fault(&format!("property {index} should not exist"));
                }
            }
            _ => {}
        }
        object
    }

    fn fault(&mut self, message: &str) {
        self.faults.push(format!("{}{message}", self.prefix));
    }

    fn field(&self, name: &str) -> Option<&'a Js> {
        self.value.get(name)
    }

    fn number(&self, name: &str) -> Number {
        match self.field(name) {
            None => Number::Missing,
            Some(Js::Null) => Number::Null,
            Some(Js::List(_)) => Number::Other,
            Some(value) => Number::Value(value.to_number()),
        }
    }

    /// A text, or what its field's value is instead. A list stays one, its items converted.
    fn text(&self, name: &str) -> Text {
        match self.field(name) {
            None => Text::Missing,
            Some(Js::Null) => Text::Null,
            Some(Js::List(items)) => Text::List(items.iter().map(Js::to_text).collect()),
            Some(value) => Text::Value(value.to_text()),
        }
    }

    /// A text that Postgres can hold.
    fn storable(&mut self, name: &str, text: &Text) -> Option<String> {
        let Text::Value(text) = text else { return None };
        if text.contains('\0') {
            self.fault(&format!("{name} must not contain a NUL character"));
            return None;
        }
        Some(text.clone())
    }

    /// A whole number that Postgres's `integer` can hold.
    fn integer(&mut self, name: &str, number: &Number) -> Option<i32> {
        let value = number.finite()?;
        if value.fract() != 0.0 {
            self.fault(&format!("{name} must be an integer number"));
        } else if value > f64::from(i32::MAX) {
            self.fault(&format!("{name} must not be greater than {}", i32::MAX));
        } else if value < f64::from(i32::MIN) {
            self.fault(&format!("{name} must not be less than {}", i32::MIN));
        } else {
            return Some(value as i32);
        }
        None
    }

    /// A required field that is any number, then a whole one.
    fn required_integer(&mut self, name: &str) -> Option<i32> {
        let number = self.number(name);
        if number.finite().is_none() {
            self.fault(&format!(
                "{name} must be a number conforming to the specified constraints"
            ));
        }
        self.integer(name, &number)
    }

    /// The `id` of one of many: positive.
    fn id(&mut self) -> Option<i32> {
        let number = self.number("id");
        if !number.is_at_least(f64::MIN_POSITIVE) {
            self.fault("id must be a positive number");
        }
        self.required_integer("id")
    }
}

/// A field that should be a number, after conversion.
#[derive(Debug, PartialEq)]
enum Number {
    Missing,
    Null,
    Value(f64),
    Other,
}

impl Number {
    /// The value unless it is NaN or infinite.
    fn finite(&self) -> Option<f64> {
        match self {
            Self::Value(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }

    fn is_at_least(&self, least: f64) -> bool {
        matches!(self, Self::Value(value) if *value >= least)
    }

    /// Neither there nor null.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Missing | Self::Null)
    }
}

/// A field that should be text, after conversion.
#[derive(Debug, PartialEq)]
enum Text {
    Missing,
    Null,
    Value(String),
    List(Vec<String>),
}

impl Text {
    fn is_text(&self) -> bool {
        matches!(self, Self::Value(_))
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Missing | Self::Null => true,
            Self::Value(text) => text.is_empty(),
            Self::List(_) => false,
        }
    }
}

/// Reads a body whose one field is a list of row ids, as links have it. Items are not converted.
fn id_list(body: &Js, name: &str) -> Read<Vec<i32>> {
    one(body, &[name], |object| {
        let value = object.field(name);
        let is_number = |item: &Js| matches!(item, Js::Number(number) if number.is_finite());
        let (all_numbers, is_list) = match value {
            Some(Js::List(items)) => (items.iter().all(is_number), true),
            // The original made a list of a map, an empty one unless its keys were indexes.
            Some(Js::Map(_)) => (true, true),
            other => (other.is_some_and(is_number), false),
        };
        if !all_numbers {
            object.fault(&format!(
                "each value in {name} must be a number conforming to the specified constraints"
            ));
        }
        if matches!(value, None | Some(Js::Null)) || value == Some(&Js::Text(String::new())) {
            object.fault(&format!("{name} should not be empty"));
        }
        if !is_list {
            object.fault(&format!("{name} must be an array"));
        }
        let Some(Js::List(items)) = value else {
            return Some(Vec::new());
        };
        let ids: Option<Vec<i32>> = items.iter().map(whole).collect();
        if all_numbers && ids.is_none() {
            object.fault(&format!(
                "each value in {name} must be an integer number of at most {}",
                i32::MAX
            ));
        }
        ids
    })
}

/// A whole number within Postgres's `integer`.
fn whole(item: &Js) -> Option<i32> {
    let value = item.to_number();
    let range = f64::from(i32::MIN)..=f64::from(i32::MAX);
    (value.fract() == 0.0 && range.contains(&value)).then_some(value as i32)
}
