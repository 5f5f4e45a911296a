//! Parameters in paths, headers and queries: what is the same for every operation of a kind.

use serde_json::{Value, json};

use super::{EVENT_STREAM, Operation};

impl Operation {
    /// All of its parameters.
    pub(super) fn parameters(&self) -> Vec<Value> {
        let mut parameters: Vec<Value> = self.in_path().or_else(|| self.filter()).into_iter().collect();
        if self.is_read() {
            let text = "Entity tags of copies that the client has; 304 where one is still good";
            parameters.push(header("If-None-Match", text));
        } else if self.has_entity_tag() {
            let text = "Entity tags of which the resource must have one, or *; else 412";
            parameters.push(header("If-Match", text));
        }
        parameters
    }

    /// True where the answer is what is stored.
    pub(super) fn is_read(&self) -> bool {
        self.method == "get" && self.answer != EVENT_STREAM
    }

    /// True where GET of the same address has one answer, whose tag a write can name.
    pub(super) fn has_entity_tag(&self) -> bool {
        self.path.ends_with('}')
    }

    fn filter(&self) -> Option<Value> {
        let schema = json!({"type": "string", "minLength": 1, "examples": ["factory/+/1/#"]});
        (self.path == "/mqtt/subscribe")
            .then(|| json!({"name": "topic", "in": "query", "required": true, "schema": schema}))
    }

    fn in_path(&self) -> Option<Value> {
        let name = self
            .path
            .split('/')
            .find_map(|part| part.strip_prefix('{')?.strip_suffix('}'))?;
        let schema = match name {
            "uuid" => json!({"type": "string", "format": "uuid"}),
            _ => json!({"type": "integer", "format": "int32"}),
        };
        Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
    }
}

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
}
