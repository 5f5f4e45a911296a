//! The bodies of requests and answers.

use serde_json::{Map, Value, json};

use super::Limits;

/// Bodies that a form can say in full: one object without lists, null and false.
pub(super) const FLAT: [&str; 7] = [
    "NewMaterial",
    "MaterialChange",
    "DatedPrice",
    "NewPart",
    "PartChange",
    "Quantity",
    "MqttMessage",
];

/// Every schema by its name.
pub(super) fn all(limits: Limits) -> Value {
    let mut schemas = Map::new();
    entities(&mut schemas);
    events(&mut schemas);
    requests(&mut schemas, limits);
    schemas.into()
}

fn entities(schemas: &mut Map<String, Value>) {
    let id = integer;
    let decimal = json!({"type": "string", "pattern": DECIMAL, "examples": ["10.25"]});
    let material = [("id", id()), ("name", text())];
    let part = [
        ("id", id()),
        ("defaultPrice", decimal.clone()),
        ("timeToProduce", seconds()),
    ];
    let machine = [("id", id())];
    let unit = [
        ("id", json!({"type": "string", "format": "uuid"})),
        ("machineId", id()),
        (
            "timeOfProduction",
            json!({"type": "string", "format": "date-time"}),
        ),
        ("partId", id()),
        ("order", integer()),
        ("var1", or_null(integer())),
        ("var2", or_null(text())),
        ("var3", or_null(text())),
        ("var4", or_null(integer())),
        ("var5", json!({"type": "boolean"})),
    ];
    let price = [
        ("id", id()),
        ("price", decimal),
        ("date", json!({"type": "string", "format": "date-time"})),
    ];
    let mut add = |name: &str, schema: Value| schemas.insert(name.into(), schema);

    add("Material", object(&material, true));
    add("MaterialPrice", object(&price, true));
    add("PartInformation", object(&part, true));
    add("Machine", object(&machine, true));
    add("SupplyChain", object(&unit, true));
    add(
        "MaterialWithParts",
        and("Material", "partInformations", reference("[PartInformation]")),
    );
    add(
        "PartWithMaterials",
        and("PartInformation", "materials", reference("[Material]")),
    );
    // After an update a decimal that was sent is a number.
    let either = json!({"type": ["string", "number"], "pattern": DECIMAL});
    add("WrittenMaterial", written(&material));
    add("WrittenMachine", written(&machine));
    let part = [
        ("id", id()),
        ("defaultPrice", either.clone()),
        ("timeToProduce", seconds()),
    ];
    add("WrittenPart", written(&part));
    let mut price = written(&[("id", id()), ("price", either), ("date", text())]);
    price["properties"]["material"] = object(&machine, true);
    add("WrittenPrice", price);
    let mut unit = written(&unit);
    unit["properties"]["machine"] = reference("Machine");
    unit["properties"]["part"] = reference("PartInformation");
    add("WrittenUnit", unit);
    let message = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let status = || json!({"type": "integer", "minimum": 400, "maximum": 599});
    let mut refusal = object(&[("statusCode", status()), ("message", message)], true);
    refusal["properties"]["error"] = text();
    add("Refusal", refusal);
    let kind = "urn:shopfloor:problem:not_found";
    let mut problem = object(
        &[
            (
                "type",
                json!({"type": "string", "format": "uri", "examples": [kind]}),
            ),
            ("title", text()),
            ("status", status()),
            ("detail", text()),
            ("instance", json!({"type": "string", "format": "uri-reference"})),
        ],
        true,
    );
    problem["properties"]["requestId"] = text();
    problem["properties"]["errors"] = list(text());
    problem["description"] = json!("RFC 9457, for requests whose Accept names application/problem+json");
    add("Problem", problem);
    let published = [("message", text()), ("value", text())];
    add("MqttPublished", object(&published, true));
}

fn events(schemas: &mut Map<String, Value>) {
    let uuid = json!({"type": "string", "format": "uuid"});
    schemas.insert("UnitId".into(), object(&[("id", uuid)], true));
    schemas.insert("StreamReset".into(), object(&[("reason", text())], true));
    let mut delivery = object(&[("topic", text())], true);
    delivery["properties"]["message"] = text();
    delivery["properties"]["base64"] = json!({"type": "string", "contentEncoding": "base64", "description": "In place of `message` where that is no UTF-8"});
    schemas.insert("MqttDelivery".into(), delivery);
}

fn requests(schemas: &mut Map<String, Value>, limits: Limits) {
    let id = [("id", positive())];
    let material = [(
        "name",
        json!({"type": "string", "minLength": 1, "pattern": STORABLE}),
    )];
    let part = [
        ("defaultPrice", json!({"type": "number", "minimum": 0})),
        ("timeToProduce", seconds()),
    ];
    let date = json!({"type": "string", "pattern": PRICE_DATE, "examples": ["15/02/2020"],
        "description": "A day that there is, in one of fourteen forms: day, month and year with slashes or hyphens"});
    let price = [("price", json!({"type": "number"})), ("date", date)];
    let required = [
        (
            "timeOfProduction",
            json!({"type": "string", "format": "date-time"}),
        ),
        ("order", integer()),
        ("var5", json!({"type": "boolean"})),
        ("machineId", integer()),
        ("partId", integer()),
    ];
    let optional = [
        ("var1", or_null(integer())),
        ("var2", or_null(storable())),
        ("var3", or_null(storable())),
        ("var4", or_null(integer())),
    ];
    let with_id = |fields: &[(&str, Value)], id: Value| {
        let mut schema = object(fields, false);
        schema["properties"]["id"] = id;
        schema["required"] = json!(["id"]);
        closed(schema)
    };
    let at_least_one = |mut schema: Value, field: &str| {
        schema["properties"][field]["minItems"] = json!(1);
        schema
    };
    let many = |field: &'static str, item: Value| closed(object(&[(field, list(item))], true));
    let mut add = |name: &str, schema: Value| schemas.insert(name.into(), schema);

    add("NewMaterial", closed(object(&material, true)));
    add("NewMaterials", many("materials", reference("NewMaterial")));
    add("MaterialChange", closed(object(&material, false)));
    add(
        "MaterialChanges",
        many("materials", with_id(&material, positive())),
    );
    let ids = many("materials", closed(object(&id, true)));
    add("MaterialIds", at_least_one(ids, "materials"));
    add("MaterialLinks", many("materialIds", integer()));
    add("DatedPrice", closed(object(&price, true)));
    let prices = many("prices", reference("DatedPrice"));
    add("DatedPrices", prices.clone());
    add("DatedPricesToDelete", at_least_one(prices, "prices"));
    add("NewPart", closed(object(&part, true)));
    add("NewParts", many("partInformations", reference("NewPart")));
    add("PartChange", closed(object(&part, false)));
    add(
        "PartChanges",
        many("partInformations", with_id(&part, positive())),
    );
    let ids = many("partInformations", closed(object(&id, true)));
    add("PartIds", at_least_one(ids, "partInformations"));
    add("PartLinks", many("partInformationIds", integer()));
    let quantity = json!({"type": "integer", "minimum": 1, "maximum": limits.max_machines_per_request});
    add("Quantity", object(&[("quantity", quantity)], true));
    let ids = object(&[("machineIds", list(integer()))], true);
    add("MachineIds", at_least_one(ids, "machineIds"));
    let mut unit = object(&required, true);
    for (name, schema) in &optional {
        unit["properties"][*name] = schema.clone();
    }
    add("NewUnit", closed(unit.clone()));
    add("NewUnits", many("supplyChains", reference("NewUnit")));
    let all: Vec<_> = required.into_iter().chain(optional).collect();
    add("UnitChange", closed(object(&all, false)));
    let uuid = json!({"type": "string", "format": "uuid"});
    add("UnitChanges", many("supplyChains", with_id(&all, uuid)));
    let plain = r"^[^+#\x00-\x1f\x7f-\x9f]+$";
    let topic = json!({"type": "string", "minLength": 1, "maxLength": 65_535, "pattern": plain,
        "description": "A topic without wildcards, of at most 65,535 bytes",
        "examples": ["factory/north/1/supply-chain"]});
    add(
        "MqttMessage",
        closed(object(&[("topic", topic), ("message", text())], true)),
    );
}

fn text() -> Value {
    json!({"type": "string"})
}

/// What Postgres holds in text.
const STORABLE: &str = r"^[^\x00]*$";
const DECIMAL: &str = r"^-?[0-9]+(\.[0-9]+)?$";
const PRICE_DATE: &str = r"^([0-9]{2}/[0-9]{2}/[0-9]{4}|[0-9]{4}/[0-9]{2}/[0-9]{2}|[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}|[0-9]{4}-[0-9]{2}-[0-9]{2})$";

fn storable() -> Value {
    json!({"type": "string", "pattern": STORABLE})
}

fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

pub(super) fn integer() -> Value {
    json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
}

/// An id that a row can have.
pub(super) fn positive() -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": i32::MAX})
}

fn seconds() -> Value {
    let mut seconds = positive();
    seconds["description"] = json!("Seconds");
    seconds
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn object(fields: &[(&str, Value)], required: bool) -> Value {
    let properties: Map<_, _> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if required {
        schema["required"] = fields.iter().map(|(name, _)| *name).collect();
    }
    schema
}

/// Unknown fields are refused.
fn closed(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    schema
}

/// An entity's fields and those of the write.
fn written(fields: &[(&str, Value)]) -> Value {
    let mut all = fields.to_vec();
    all.push(("isDeleted", json!({"type": "boolean", "const": false})));
    let pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.0000000$";
    let time = json!({"type": "string", "pattern": pattern, "description": "UTC",
        "examples": ["2023-12-10 08:00:00.0000000"]});
    all.push(("lastUpdate", time));
    object(&all, true)
}

fn and(base: &str, field: &str, schema: Value) -> Value {
    json!({"allOf": [reference(base), object(&[(field, schema)], true)]})
}

/// `Name` or, for a list, `[Name]`.
pub(super) fn reference(name: &str) -> Value {
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(item) => json!({"type": "array", "items": reference(item)}),
        None => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}
