//! The API's description, OpenAPI 3.1, and Swagger UI, under the original's addresses.
//!
//! - This file: the operations, one line each, and the document that they make.
//! - `parameters`: what paths and headers carry.
//! - `schemas`: the bodies.
//! - `events`: what streams tell.
//! - `ui`: the routes.
//!
//! `openapi.json` beside the crate is the document as it was last agreed on; a test compares.

// Assigning to a field of a JSON object adds it; every object here is this module's own.
#![allow(clippy::indexing_slicing)]

mod events;
mod parameters;
mod schemas;
pub(crate) mod ui;

use schemas::reference;
use serde_json::{Map, Value, json};

use crate::config::ApiConfig;
use crate::identity::required;

/// One operation of the contract.
struct Operation {
    method: &'static str,
    /// Under `/api/v1`.
    path: &'static str,
    summary: &'static str,
    /// The body's schema; empty where there is no body.
    body: &'static str,
    success: u16,
    /// The answer's schema; empty where there is no body. A list is written `[Name]`.
    answer: &'static str,
    /// Statuses of refusals beside those that every operation has.
    refusals: &'static [u16],
}

const fn operation(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: &'static str,
    success: u16,
    answer: &'static str,
    refusals: &'static [u16],
) -> Operation {
    Operation {
        method,
        path,
        summary,
        body,
        success,
        answer,
        refusals,
    }
}

#[rustfmt::skip]
const OPERATIONS: &[Operation] = &[
    operation("get", "/materials", "List materials", "", 200, "[Material]", &[]),
    operation("post", "/materials", "Create a material", "NewMaterial", 201, "WrittenMaterial", &[400, 409]),
    operation("post", "/materials/many-materials", "Create materials, all or none", "NewMaterials", 201, "[WrittenMaterial]", &[400, 409]),
    operation("patch", "/materials/many-materials", "Change materials, all or none", "MaterialChanges", 200, "[WrittenMaterial]", &[400, 404, 409]),
    operation("delete", "/materials/many-materials", "Delete materials, all or none", "MaterialIds", 204, "", &[400, 404, 409]),
    operation("get", "/materials/{id}", "Get a material", "", 200, "Material", &[400, 404]),
    operation("patch", "/materials/{id}", "Change a material", "MaterialChange", 200, "WrittenMaterial", &[400, 404, 409]),
    operation("delete", "/materials/{id}", "Delete a material and its links", "", 204, "", &[400, 404, 409]),
    operation("post", "/materials/{id}/part-informations", "Link a material with parts", "PartLinks", 201, "MaterialWithParts", &[400, 404]),
    operation("delete", "/materials/{id}/part-informations", "Remove a material's links with parts", "PartLinks", 204, "", &[400, 404]),
    operation("get", "/materials/prices/{materialId}", "List a material's prices", "", 200, "[MaterialPrice]", &[400, 404]),
    operation("post", "/materials/prices/{materialId}", "Set the price of a day", "DatedPrice", 201, "WrittenPrice", &[400, 404]),
    operation("delete", "/materials/prices/{materialId}", "Delete the price of a day", "DatedPrice", 204, "", &[400, 404]),
    operation("post", "/materials/prices/{materialId}/many-prices", "Set the prices of days, all or none", "DatedPrices", 201, "[WrittenPrice]", &[400, 404]),
    operation("delete", "/materials/prices/{materialId}/many-prices", "Delete the prices of days, all or none", "DatedPricesToDelete", 204, "", &[400, 404]),
    operation("get", "/part-information", "List parts", "", 200, "[PartInformation]", &[]),
    operation("post", "/part-information", "Create a part", "NewPart", 201, "WrittenPart", &[400]),
    operation("post", "/part-information/many-part-informations", "Create parts, all or none", "NewParts", 201, "[WrittenPart]", &[400]),
    operation("patch", "/part-information/many-part-informations", "Change parts, all or none", "PartChanges", 200, "[WrittenPart]", &[400, 404]),
    operation("delete", "/part-information/many-part-informations", "Delete parts, all or none", "PartIds", 204, "", &[400, 404, 409]),
    operation("get", "/part-information/{id}", "Get a part", "", 200, "PartInformation", &[400, 404]),
    operation("patch", "/part-information/{id}", "Change a part", "PartChange", 200, "WrittenPart", &[400, 404]),
    operation("delete", "/part-information/{id}", "Delete a part and its links", "", 204, "", &[400, 404, 409]),
    operation("post", "/part-information/{id}/materials", "Link a part with materials", "MaterialLinks", 201, "PartWithMaterials", &[400, 404]),
    operation("delete", "/part-information/{id}/materials", "Remove a part's links with materials", "MaterialLinks", 204, "", &[400, 404]),
    operation("get", "/machine", "List machines", "", 200, "[Machine]", &[]),
    operation("post", "/machine", "Create a machine", "", 201, "WrittenMachine", &[]),
    operation("post", "/machine/many-machines", "Create machines", "Quantity", 201, "[WrittenMachine]", &[400]),
    operation("delete", "/machine/many-machines", "Delete machines, all or none", "MachineIds", 204, "", &[400, 404, 409]),
    operation("get", "/machine/{id}", "Get a machine", "", 200, "Machine", &[400, 404]),
    operation("delete", "/machine/{id}", "Delete a machine", "", 204, "", &[400, 404, 409]),
    operation("get", "/supply-chain", "List produced units", "", 200, "[SupplyChain]", &[]),
    operation("post", "/supply-chain", "Create a unit", "NewUnit", 201, "WrittenUnit", &[400, 404]),
    operation("post", "/supply-chain/many-supply-chain", "Create units, all or none", "NewUnits", 201, "[WrittenUnit]", &[400, 404]),
    operation("patch", "/supply-chain/many-supply-chain", "Change units, all or none", "UnitChanges", 200, "[WrittenUnit]", &[400, 404]),
    operation("get", "/supply-chain/stream", "Follow units as they change", "", 200, EVENT_STREAM, &[400]),
    operation("get", "/supply-chain/{uuid}", "Get a unit", "", 200, "SupplyChain", &[400, 404]),
    operation("patch", "/supply-chain/{uuid}", "Change a unit", "UnitChange", 200, "WrittenUnit", &[400, 404]),
    operation("post", "/mqtt/publish", "Publish to an MQTT topic; answered when the broker has acknowledged", "MqttMessage", 201, "MqttPublished", &[422, 501, 502, 504]),
    operation("get", "/mqtt/subscribe", "Follow an MQTT topic filter", "", 200, EVENT_STREAM, &[501, 502]),
];

/// An answer that is a stream of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";

/// Refusals that every operation has, and those of a body.
const ANYWHERE: [u16; 7] = [400, 401, 403, 412, 429, 500, 503];
const OF_A_BODY: [u16; 4] = [409, 413, 415, 422];

/// Limits that are settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    max_page_rows: u32,
    max_machines_per_request: u32,
}

impl Limits {
    pub(crate) fn of(config: &ApiConfig) -> Self {
        Self {
            max_page_rows: config.max_page_rows,
            max_machines_per_request: config.max_machines_per_request,
        }
    }
}

/// The whole document.
pub(crate) fn document(limits: Limits) -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths
            .entry(format!("/api/v1{}", operation.path))
            .or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), operation.describe(limits));
        }
    }
    let text = "A token of the identity provider that the server names. `x-role` is the role that an operation asks \
                for: viewer, operator or admin, each of which includes those before it.";
    let bearer = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": text});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Production API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas::all(limits), "securitySchemes": {"bearer": bearer}},
        // Either: it depends on whether the server names an identity provider.
        "security": [{}, {"bearer": []}],
    })
}

impl Operation {
    fn describe(&self, limits: Limits) -> Value {
        let tag = self.path.split('/').nth(1).unwrap_or_default();
        let mut described = json!({
            "tags": [tag],
            "summary": self.summary,
            "operationId": self.id(),
            "x-role": self.role(),
            "responses": self.responses(),
        });
        let parameters = self.parameters(limits);
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if !self.body.is_empty() {
            let schema = json!({"schema": reference(self.body)});
            let mut content = json!({"application/json": schema});
            if schemas::FLAT.contains(&self.body) {
                content["application/x-www-form-urlencoded"] = schema;
            }
            described["requestBody"] = json!({"required": true, "content": content});
        }
        described
    }

    /// The role that a caller must have where an identity provider is named.
    fn role(&self) -> &'static str {
        let method = self.method.to_ascii_uppercase().parse().unwrap_or_default();
        required(&method, self.path).name()
    }

    /// Where a refusal of that status carries `Retry-After`.
    fn says_when(&self, status: u16) -> bool {
        matches!(status, 429 | 503) || (status == 409 && self.keeps_answers())
    }

    /// Unique in the document: `patch_materials_many-materials`.
    fn id(&self) -> String {
        let path = self.path.replace('/', "_").replace(['{', '}'], "");
        format!("{}{path}", self.method)
    }

    fn responses(&self) -> Value {
        let mut responses = Map::new();
        let mut success = json!({"description": self.summary});
        if self.answer == EVENT_STREAM {
            success["content"] = json!({EVENT_STREAM: events::of(self.path)});
        } else if !self.answer.is_empty() {
            success["content"] = json!({"application/json": {"schema": reference(self.answer)}});
        }
        if self.is_read() || self.method == "patch" && self.has_entity_tag() {
            let text = "What If-Match and If-None-Match can name, in gzip another one for the same. Absent on lists of \
                        more than 255 rows.";
            success["headers"] = json!({"ETag": {"description": text, "schema": {"type": "string"}}});
        }
        if self.has_pages() {
            let text = "The next page, where there is one: `<path>; rel=\"next\"`";
            success["headers"]["Link"] = json!({"description": text, "schema": {"type": "string"}});
        }
        responses.insert(self.success.to_string(), success);
        if self.is_read() {
            responses.insert("304".into(), json!({"description": reason(304)}));
        }
        let of_a_body = OF_A_BODY.iter().filter(|_| self.method != "get");
        for status in ANYWHERE.iter().chain(of_a_body).chain(self.refusals) {
            let content = json!({
                "application/json": {"schema": reference("Refusal")},
                "application/problem+json": {"schema": reference("Problem")},
            });
            let mut refusal = json!({"description": reason(*status), "content": content});
            if self.says_when(*status) {
                let text = "Seconds after which the request may be sent again";
                let seconds = json!({"type": "integer", "minimum": 0});
                refusal["headers"] = json!({"Retry-After": {"description": text, "schema": seconds}});
            }
            responses.insert(status.to_string(), refusal);
        }
        responses.into()
    }
}

/// What holds for all operations.
const DESCRIPTION: &str = "Machines, parts, materials and the units that are produced of them.

Beyond the service that this one replaces, and only for who asks:

- **Entity tags**: GET answers `ETag`; `If-None-Match` spares the body, `If-Match` guards a write.
- **Problem details** (RFC 9457) in place of the original's errors, for `Accept: application/problem+json`.
- **Idempotency-Key**: a write that is sent again under its key is answered again and done once.
- **Pages**: `pageSize` and `after`, the next page in `Link`; units by `machineId`, `partId`, `from` and `to`. A query that \
names none of a list's parameters is ignored, as the original ignored all; one that names any must be right in all of it.
- **Live updates**: `GET /api/v1/supply-chain/stream`, server-sent events without a gap over reconnects.
- **gzip** for answers of 1,400 bytes or more.
- **Forms**: where a body has lists, they are written `materials[0][name]=zinc`, which this document has no words for.
- **X-Request-ID**: a caller's own, 1 to 128 visible ASCII characters, is kept for the logs and sent back; else one is made.";

fn reason(status: u16) -> &'static str {
    let status = http::StatusCode::from_u16(status).ok();
    status
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        super::document(limits())
    }

    fn limits() -> Limits {
        Limits::of(&ApiConfig::default())
    }

    /// `SHOPFLOOR_BLESS=1 cargo test -p shopfloor-api` writes the copy anew.
    #[test]
    fn the_document_is_the_one_that_was_agreed_on() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let document = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("SHOPFLOOR_BLESS").is_some() {
            std::fs::write(path, &document).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), document);
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_every_one_that_is_there_is_named() {
        let text = document().to_string();
        let schemas = schemas::all(limits());
        for name in schemas.as_object().unwrap().keys() {
            assert!(
                text.contains(&format!("#/components/schemas/{name}\"")),
                "{name} is not used"
            );
        }
        for named in text.split("#/components/schemas/").skip(1) {
            let name = named.split('"').next().unwrap();
            assert!(schemas.get(name).is_some(), "{name} is not there");
        }
    }
}
