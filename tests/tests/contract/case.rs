//! The recorded cases as they lie in `tests/fixtures/http`.

use serde_json::Value;

/// One request with its recorded answer.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) expected: Expected,
    /// Names for fields of the answer, which later cases use as `{{name}}`; the field is `$.<field>`.
    pub(crate) captures: Vec<(String, String)>,
}

#[derive(Clone)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
    /// Topic and value of each record, in order.
    pub(crate) records: Vec<(String, Value)>,
}

/// Reads `tests/fixtures/http/<file>.json`.
pub(crate) fn load(file: &str) -> Vec<Case> {
    let path = format!("{}/fixtures/http/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    cases.iter().map(case).collect()
}

fn case(case: &Value) -> Case {
    let (request, response) = (&case["request"], &case["response"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let records = case["kafka"].as_array().map(Vec::as_slice).unwrap_or_default();
    Case {
        name: text(&case["name"]),
        method: text(&request["method"]),
        path: text(&request["path"]),
        headers: headers(&request["headers"]),
        body: body(&request["body"]),
        expected: Expected {
            status: u16::try_from(response["status"].as_u64().unwrap()).unwrap(),
            headers: headers(&response["headers"]),
            body: response["body"].clone(),
            records: records.iter().map(|record| (text(&record["topic"]), value(&record["value"]))).collect(),
        },
        captures: strings(&case["capture"]),
    }
}

fn strings(value: &Value) -> Vec<(String, String)> {
    let Some(map) = value.as_object() else { return Vec::new() };
    map.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn headers(value: &Value) -> Vec<(String, String)> {
    strings(value)
}

fn value(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

/// A text, or a long one that the fixture describes instead of holding it.
fn body(body: &Value) -> String {
    let Some(generated) = body.get("generated") else {
        return body.as_str().unwrap_or_default().to_owned();
    };
    let part = |name: &str| generated[name].as_str().unwrap();
    let count = usize::try_from(generated["count"].as_u64().unwrap()).unwrap();
    format!("{}{}{}", part("prefix"), part("char").repeat(count), part("suffix"))
}
