//! Parameters in paths, headers and queries: what is the same for every operation of a kind.

use serde_json::{Value, json};

use super::schemas::{integer, positive};
use super::{EVENT_STREAM, Limits, Operation};

impl Operation {
    /// All of its parameters.
    pub(super) fn parameters(&self, limits: Limits) -> Vec<Value> {
        let mut parameters: Vec<Value> = self.in_path().or_else(|| self.filter()).into_iter().collect();
        if self.has_pages() {
            parameters.extend(pages(limits));
        }
        if self.path == "/supply-chain" && self.is_read() {
            parameters.extend(unit_filters());
        }
        if self.path == "/supply-chain/stream" {
            parameters.extend(unit_filters().into_iter().take(2));
            let text = "The id of the last event that the client has: the stream goes on behind it";
            parameters.push(header("Last-Event-ID", text, json!({"type": "string"})));
        }
        if self.is_read() {
            let text = "Entity tags of copies that the client has; 304 where one is still good";
            parameters.push(header("If-None-Match", text, json!({"type": "string"})));
        } else if self.has_entity_tag() {
            let text = "Entity tags of which the resource must have one, or *; else 412";
            let tags = r#"^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$"#;
            let schema = json!({"type": "string", "minLength": 1, "pattern": tags, "examples": ["*"]});
            parameters.push(header("If-Match", text, schema));
        }
        if self.keeps_answers() {
            let text = "Of the client's making: the same request sent again under it is answered again and done once";
            let key = r#"^([!#-\[\]-~]{1,255}|"[!#-\[\]-~]{1,255}")$"#;
            let schema = json!({"type": "string", "minLength": 1, "maxLength": 257, "pattern": key});
            parameters.push(header("Idempotency-Key", text, schema));
        }
        parameters
    }

    /// True for the lists of whole tables.
    pub(super) fn has_pages(&self) -> bool {
        self.is_read() && self.answer.starts_with('[') && !self.path.contains('{')
    }

    /// True where the answer is what is stored.
    pub(super) fn is_read(&self) -> bool {
        self.method == "get" && self.answer != EVENT_STREAM
    }

    /// True where a write can be sent again under its key.
    pub(super) fn keeps_answers(&self) -> bool {
        self.method != "get" && !self.path.starts_with("/mqtt/")
    }

    /// True where GET of the same address has one answer, whose tag a write can name.
    pub(super) fn has_entity_tag(&self) -> bool {
        self.path.ends_with('}')
    }

    fn filter(&self) -> Option<Value> {
        // A wildcard stands for whole levels, `#` for the last ones.
        let levels = r"^([^+#\x00-\x1f\x7f-\x9f/]*|\+)(/([^+#\x00-\x1f\x7f-\x9f/]*|\+))*(/#)?$|^#$";
        let schema = json!({"type": "string", "minLength": 1, "maxLength": 65_535, "pattern": levels,
            "not": {"pattern": r"^\$share/"}, "examples": ["factory/+/1/#"]});
        (self.path == "/mqtt/subscribe")
            .then(|| json!({"name": "topic", "in": "query", "required": true, "schema": schema}))
    }

    fn in_path(&self) -> Option<Value> {
        let name = self
            .path
            .split('/')
            .find_map(|part| part.strip_prefix('{')?.strip_suffix('}'))?;
        let schema = match name {
            "uuid" => json!({"type": "string", "format": "uuid", "pattern": UNIT_ID}),
            _ => integer(),
        };
        Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
    }
}

/// Version 4 or 7.
const UNIT_ID: &str =
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[47][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$";

fn pages(limits: Limits) -> [Value; 2] {
    let size = json!({"type": "integer", "minimum": 1, "maximum": limits.max_page_rows});
    let text = "Rows of a page. Without it and `after` the list is whole.";
    let after = "Where the page before ended: taken from its Link header.";
    [
        in_query("pageSize", text, size),
        in_query(
            "after",
            after,
            json!({"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9_-]+$"}),
        ),
    ]
}

fn unit_filters() -> [Value; 4] {
    let id = positive;
    let time = || json!({"type": "string", "format": "date-time"});
    [
        in_query("machineId", "Only units of this machine.", id()),
        in_query("partId", "Only units of this part.", id()),
        in_query("from", "Only units produced at this time or later.", time()),
        in_query("to", "Only units produced before this time.", time()),
    ]
}

fn in_query(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": schema})
}
