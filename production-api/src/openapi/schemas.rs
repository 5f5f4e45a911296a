//! The bodies of requests and answers.

use serde_json::{Map, Value, json};

/// Every schema by its name.
pub(super) fn all() -> Value {
    let mut schemas = Map::new();
    entities(&mut schemas);
    requests(&mut schemas);
    schemas.into()
}

fn entities(schemas: &mut Map<String, Value>) {
    let id = || json!({"type": "integer", "format": "int32"});
    let decimal = json!({"type": "string", "examples": ["10.25"]});
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
        ("var1", json!({"type": ["integer", "null"]})),
        ("var2", json!({"type": ["string", "null"]})),
        ("var3", json!({"type": ["string", "null"]})),
        ("var4", json!({"type": ["integer", "null"]})),
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
    let either = json!({"type": ["string", "number"]});
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
    let mut refusal = object(&[("statusCode", integer()), ("message", message)], true);
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
            ("status", integer()),
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

fn requests(schemas: &mut Map<String, Value>) {
    let positive = || json!({"type": "integer", "format": "int32", "minimum": 1});
    let id = [("id", positive())];
    let material = [("name", json!({"type": "string", "minLength": 1}))];
    let part = [
        ("defaultPrice", json!({"type": "number", "minimum": 0})),
        ("timeToProduce", seconds()),
    ];
    let date = json!({"type": "string", "description": "A day in one of fourteen forms", "examples": ["15/02/2020"]});
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
        ("var1", json!({"type": ["integer", "null"], "format": "int32"})),
        ("var2", json!({"type": ["string", "null"]})),
        ("var3", json!({"type": ["string", "null"]})),
        ("var4", json!({"type": ["integer", "null"], "format": "int32"})),
    ];
    let with_id = |fields: &[(&str, Value)], id: Value| {
        let mut schema = object(fields, false);
        schema["properties"]["id"] = id;
        schema["required"] = json!(["id"]);
        closed(schema)
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
    add("MaterialIds", many("materials", closed(object(&id, true))));
    add("MaterialLinks", many("materialIds", integer()));
    add("DatedPrice", closed(object(&price, true)));
    add("DatedPrices", many("prices", reference("DatedPrice")));
    add("NewPart", closed(object(&part, true)));
    add("NewParts", many("partInformations", reference("NewPart")));
    add("PartChange", closed(object(&part, false)));
    add(
        "PartChanges",
        many("partInformations", with_id(&part, positive())),
    );
    add("PartIds", many("partInformations", closed(object(&id, true))));
    add("PartLinks", many("partInformationIds", integer()));
    add("Quantity", object(&[("quantity", positive())], true));
    add("MachineIds", object(&[("machineIds", list(integer()))], true));
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
    let topic = json!({"type": "string", "minLength": 1, "description": "A topic without wildcards",
        "examples": ["factory/north/1/supply-chain"]});
    add(
        "MqttMessage",
        closed(object(&[("topic", topic), ("message", text())], true)),
    );
}

fn text() -> Value {
    json!({"type": "string"})
}

fn integer() -> Value {
    json!({"type": "integer", "format": "int32"})
}

fn seconds() -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 1, "description": "Seconds"})
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
    all.push(("isDeleted", json!({"type": "boolean"})));
    all.push((
        "lastUpdate",
        json!({"type": "string", "examples": ["2023-12-10 08:00:00.0000000"]}),
    ));
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
