//! Sends cases in order and compares.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use crate::case::{Case, load};
use crate::differences;
use crate::server::{Answer, Server};

/// Replays a file; answers every deviation.
pub(crate) async fn replay(file: &str, server: &Server) -> Vec<String> {
    let mut names = HashMap::new();
    let mut problems = Vec::new();
    for case in load(file) {
        let path = fill(&case.path, &names);
        let body = fill(&case.body, &names);
        let answer = server.send(&case.method, &path, &case.headers, body).await;
        let records = server.new_records().await;
        if let Err(problem) = check(file, &case, &answer, &records, &mut names) {
            let answered = format!("{} {} {:?}", answer.status, answer.body, records);
            problems.push(format!("{file} / {}: {problem}\n    answered {answered}", case.name));
        }
    }
    problems
}

fn check(
    file: &str,
    case: &Case,
    answer: &Answer,
    records: &[(String, Value)],
    names: &mut HashMap<String, String>,
) -> Result<(), String> {
    for (name, field) in &case.captures {
        let captured = answer.body[field.trim_start_matches("$.")].as_str();
        let captured = captured.ok_or_else(|| format!("no {field} to capture"))?;
        names.insert(name.clone(), captured.to_owned());
    }
    let mut expected = case.expected.clone();
    if let Some(difference) = differences::of(file, &case.name) {
        let changed = difference.expected(&expected);
        let is_stale = changed.status == expected.status
            && changed.body == expected.body
            && changed.records == expected.records;
        if is_stale {
            return Err("the difference is none: it says what was recorded".into());
        }
        expected = changed;
    }
    if answer.status != expected.status {
        return Err(format!("status {} instead of {}", answer.status, expected.status));
    }
    for (name, value) in &expected.headers {
        let answered = answer.headers.get(name).map(|value| value.to_str().unwrap());
        if answered != Some(value) {
            return Err(format!("header {name} is {answered:?} instead of {value}"));
        }
    }
    same(&expected.body, &answer.body, names).map_err(|problem| format!("body{problem}"))?;
    if records.len() != expected.records.len() {
        return Err(format!("{} records instead of {}", records.len(), expected.records.len()));
    }
    for ((topic, value), (expected_topic, expected_value)) in records.iter().zip(&expected.records) {
        if topic != expected_topic {
            return Err(format!("a record for {topic} instead of {expected_topic}"));
        }
        same(expected_value, value, names).map_err(|problem| format!("record{problem}"))?;
    }
    Ok(())
}

/// `{{name}}` replaced by what was captured under that name.
fn fill(text: &str, names: &HashMap<String, String>) -> String {
    names
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

/// Compares with placeholders; the error says where they differ.
fn same(expected: &Value, answered: &Value, names: &HashMap<String, String>) -> Result<(), String> {
    match (expected, answered) {
        (Value::Object(wanted), Value::Object(got)) => {
            for key in got.keys().filter(|key| !wanted.contains_key(*key)) {
                return Err(format!(".{key} is too much"));
            }
            for (key, value) in wanted {
                let got = got.get(key).ok_or_else(|| format!(".{key} is missing"))?;
                same(value, got, names).map_err(|problem| format!(".{key}{problem}"))?;
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (index, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                same(wanted, got, names).map_err(|problem| format!("[{index}]{problem}"))?;
            }
            Ok(())
        }
        (Value::Number(wanted), Value::Number(got)) if wanted.as_f64() == got.as_f64() => Ok(()),
        (Value::String(wanted), Value::String(got)) if fits(wanted, got, names) => Ok(()),
        (wanted, got) if wanted == got => Ok(()),
        (wanted, got) => Err(format!(" is {got} instead of {wanted}")),
    }
}

fn fits(wanted: &str, got: &str, names: &HashMap<String, String>) -> bool {
    match wanted {
        "{{lastUpdate}}" => is_last_update(got),
        "{{uuid}}" => Uuid::parse_str(got).is_ok_and(|id| matches!(id.get_version_num(), 4 | 7)),
        _ => fill(wanted, names) == got,
    }
}

/// `2023-12-10 08:00:00.0000000`
fn is_last_update(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00 00:00:00.0000000"
}
