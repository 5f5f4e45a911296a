//! One JSON object, read into the fields that the contract knows.
//!
//! No tree is built: strings stay slices of the payload unless they hold escapes, and fields that nobody knows
//! are read and forgotten. They are still read in full (depth, escapes, numbers), since the client's JSON parser
//! reads them too and must not fail there.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Violation;

/// Most characters of a value that an error text repeats.
const SHOWN_CHARS: usize = 40;

/// The fields that some rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    MachineId,
    PartId,
    TimeOfProduction,
    Order,
    Var1,
    Var2,
    Var3,
    Var4,
    Var5,
    Id,
    Name,
    TimeToProduce,
    DefaultPrice,
    IsDeleted,
    LastUpdate,
    MaterialIdOds,
}

const FIELDS: usize = Field::MaterialIdOds as usize + 1;

impl Field {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "machineId" => Self::MachineId,
            "partId" => Self::PartId,
            "timeOfProduction" => Self::TimeOfProduction,
            "order" => Self::Order,
            "var1" => Self::Var1,
            "var2" => Self::Var2,
            "var3" => Self::Var3,
            "var4" => Self::Var4,
            "var5" => Self::Var5,
            "id" => Self::Id,
            "name" => Self::Name,
            "timeToProduce" => Self::TimeToProduce,
            "defaultPrice" => Self::DefaultPrice,
            "isDeleted" => Self::IsDeleted,
            "lastUpdate" => Self::LastUpdate,
            "materialIdODS" => Self::MaterialIdOds,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MachineId => "machineId",
            Self::PartId => "partId",
            Self::TimeOfProduction => "timeOfProduction",
            Self::Order => "order",
            Self::Var1 => "var1",
            Self::Var2 => "var2",
            Self::Var3 => "var3",
            Self::Var4 => "var4",
            Self::Var5 => "var5",
            Self::Id => "id",
            Self::Name => "name",
            Self::TimeToProduce => "timeToProduce",
            Self::DefaultPrice => "defaultPrice",
            Self::IsDeleted => "isDeleted",
            Self::LastUpdate => "lastUpdate",
            Self::MaterialIdOds => "materialIdODS",
        }
    }
}

/// A field's value, as far as a rule can tell values apart.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// Anything with a fraction or an exponent, and integers beyond 64 bits.
    Float(f64),
    Text(Cow<'a, str>),
    List,
    Object,
}

impl Value<'_> {
    /// The integer where the value is one in that range.
    pub(super) fn integer(&self, min: i64, max: i64) -> Option<i32> {
        match self {
            Self::Integer(value) if (min..=max).contains(value) => i32::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The error for a value that is not what the field needs.
    pub(super) fn is_not(&self, field: Field, expected: &'static str) -> Violation {
        Violation::Value {
            field: field.name(),
            found: self.to_string(),
            expected,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "the number {value:?}"),
            Self::Text(text) => {
                let shown: String = text.chars().take(SHOWN_CHARS).collect();
                let more = if shown.len() < text.len() { "…" } else { "" };
                write!(f, "the string {shown:?}{more}")
            }
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// One object's known fields.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    values: [Option<Value<'a>>; FIELDS],
    repeated: Option<Field>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Violation> {
        let text = std::str::from_utf8(payload).map_err(|error| Violation::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        let fields: Self = serde_json::from_str(text).map_err(|error| Violation::NotObject {
            why: error.to_string(),
        })?;
        match fields.repeated {
            Some(field) => Err(Violation::Duplicate { field: field.name() }),
            None => Ok(fields),
        }
    }

    pub(super) fn get(&self, field: Field) -> Option<&Value<'a>> {
        self.values.get(field as usize)?.as_ref()
    }

    pub(super) fn need(&self, field: Field, expected: &'static str) -> Result<&Value<'a>, Violation> {
        self.get(field).ok_or(Violation::Missing {
            field: field.name(),
            expected,
        })
    }

    pub(super) fn is_not(&self, field: Field, expected: &'static str) -> Violation {
        match self.get(field) {
            Some(value) => value.is_not(field, expected),
            None => Violation::Missing {
                field: field.name(),
                expected,
            },
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(Name(field)) = map.next_key()? {
                    let value: Value<'de> = map.next_value()?;
                    let Some(field) = field else { continue };
                    let Some(slot) = fields.values.get_mut(field as usize) else {
                        continue;
                    };
                    if slot.replace(value).is_some() {
                        fields.repeated = Some(field);
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Name(Option<Field>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                Ok(Name(Field::of(name)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `IgnoredAny`: that skips without looking at depth, escapes or the size of numbers.
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        while let Some(_item) = list.next_element::<Value<'de>>()? {}
        Ok(Value::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while let Some((_name, _value)) = map.next_entry::<Name, Value<'de>>()? {}
        Ok(Value::Object)
    }
}
