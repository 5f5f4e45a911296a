//! Where this service answers otherwise than the original, on purpose, and why.

use serde_json::{Value, json};

use crate::case::Expected;

/// One case that is answered otherwise than it was recorded.
pub(crate) struct Difference {
    pub(crate) file: &'static str,
    pub(crate) case: &'static str,
    /// For the reader of this table.
    #[allow(dead_code)]
    why: &'static str,
    instead: Instead,
}

enum Instead {
    /// 400, the field named.
    Fields(&'static [&'static str]),
    /// 400 with a single text.
    Malformed(&'static str),
    /// 400 with a single text in the short shape.
    Refused(&'static str),
    Conflict(&'static str),
    /// The recorded answer with values replaced, by JSON pointer.
    With(&'static [(&'static str, &'static str)]),
}

use Instead::{Conflict, Fields, Malformed, Refused, With};

const OVERFLOW: &str = "constraint, overflow and float-in-int 500s are 400 with the field named";
const JAVASCRIPT_ID: &str = "JavaScript number forms are no ids";
const STORED_DAY: &str = "a price comes back under the day that was stored";

const ID_TOO_LARGE: Instead = Fields(&["id must not be greater than 2147483647"]);
const NOT_WHOLE_TIME: Instead = Fields(&["timeToProduce must be an integer number"]);

const fn difference(file: &'static str, case: &'static str, why: &'static str, instead: Instead) -> Difference {
    Difference { file, case, why, instead }
}

#[rustfmt::skip]
pub(crate) const ALL: &[Difference] = &[
    difference("01_materials", "mat create NUL char", OVERFLOW, Fields(&["name must not contain a NUL character"])),
    difference("01_materials", "mat get 0x1", JAVASCRIPT_ID, Malformed("Validation failed (numeric string is expected)")),
    difference("01_materials", "mat get 1e0", JAVASCRIPT_ID, Malformed("Validation failed (numeric string is expected)")),
    difference("01_materials", "mat get 2147483648", OVERFLOW, ID_TOO_LARGE),
    difference("01_materials", "mat get 1e20 digits", OVERFLOW, ID_TOO_LARGE),
    difference("01_materials", "mats many dup inside", "duplicate names inside one batch are a conflict",
        Conflict("These materials already exist: d1")),
    difference("01_materials", "mats many missing", OVERFLOW, Fields(&["materials must be an array"])),
    difference("01_materials", "mats many object", OVERFLOW, Fields(&["materials must be an array"])),
    difference("02_prices", "price list ambiguous", STORED_DAY, With(&[("/0/date", "2020-10-11T00:00:00.000Z")])),
    difference("02_prices", "price list ambiguous 2", STORED_DAY,
        With(&[("/0/date", "2020-10-11T00:00:00.000Z"), ("/4/date", "2021-11-10T00:00:00.000Z")])),
    difference("03_parts", "part get huge", OVERFLOW, ID_TOO_LARGE),
    difference("03_parts", "part create ttp 1.5", OVERFLOW, NOT_WHOLE_TIME),
    difference("03_parts", "part create ttp huge", OVERFLOW, Fields(&["timeToProduce must not be greater than 2147483647"])),
    difference("03_parts", "parts many ttp float -> tx rollback", OVERFLOW,
        Fields(&["partInformations.1.timeToProduce must be an integer number"])),
    difference("03_parts", "part patch null price", OVERFLOW,
        Fields(&["The default price must be a non-negative number.", "Price must be a floating point number"])),
    difference("03_parts", "part patch null ttp", OVERFLOW,
        Fields(&["The time to produce is required.", "The time to produce must be a positive number.",
            "timeToProduce must be a number conforming to the specified constraints"])),
    difference("03_parts", "part patch ttp float", OVERFLOW, NOT_WHOLE_TIME),
    difference("03_parts", "part get 1 after partial", "a many-write is all or nothing", With(&[("/defaultPrice", "14999.99")])),
    difference("04_machines", "mac get huge", OVERFLOW, ID_TOO_LARGE),
    difference("04_machines", "mac delete huge", OVERFLOW, ID_TOO_LARGE),
    difference("04_machines", "macs 1e10", "quantity is capped", Refused("Quantity must not be greater than 10000")),
    difference("04_machines", "mac delete with FK", "a machine that units refer to stays, and no record says otherwise",
        Conflict("The machine cannot be deleted: supply chain units refer to it.")),
    difference("05_supply_chain", "sc order float", OVERFLOW, Fields(&["order must be an integer number"])),
    difference("05_supply_chain", "sc order huge", OVERFLOW, Fields(&["order must not be greater than 2147483647"])),
    difference("05_supply_chain", "sc var1 float", OVERFLOW, Fields(&["var1 must be an integer number"])),
    difference("05_supply_chain", "sc var1 huge", OVERFLOW, Fields(&["var1 must not be greater than 2147483647"])),
    difference("05_supply_chain", "sc var4 float", OVERFLOW, Fields(&["var4 must be an integer number"])),
    difference("05_supply_chain", "sc var5 str false", "the text false is not read as true", Fields(&["var5 must be a boolean value"])),
];

pub(crate) fn of(file: &str, case: &str) -> Option<&'static Difference> {
    ALL.iter().find(|difference| difference.file == file && difference.case == case)
}

impl Difference {
    /// What is answered instead of `recorded`.
    pub(crate) fn expected(&self, recorded: &Expected) -> Expected {
        let bad_request = |message: Value| json!({"message": message, "error": "Bad Request", "statusCode": 400});
        let (status, body) = match &self.instead {
            Fields(messages) => (400, bad_request(json!(messages))),
            Malformed(message) => (400, bad_request(json!(message))),
            Refused(message) => (400, json!({"statusCode": 400, "message": message})),
            Conflict(message) => (409, json!({"statusCode": 409, "message": message})),
            With(values) => {
                let mut body = recorded.body.clone();
                for (pointer, value) in *values {
                    *body.pointer_mut(pointer).unwrap_or_else(|| panic!("{}: no {pointer}", self.case)) = json!(value);
                }
                return Expected { body, ..recorded.clone() };
            }
        };
        Expected { status, headers: recorded.headers.clone(), body, records: Vec::new() }
    }
}
