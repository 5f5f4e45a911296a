//! Sends cases in order and compares.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use crate::case::{Case, Expected, load};
use crate::differences;
use crate::server::{Answer, Server};

/// What a captured name stands for.
pub(crate) type Names = HashMap<String, String>;

/// A record that a case must have produced: the names in its value are captured.
pub(crate) struct Due {
    pub(crate) case: String,
    pub(crate) topic: String,
    pub(crate) value: Value,
}

/// Replays a file and looks for its records in the outbox; answers every deviation.
pub(crate) async fn replay(file: &str, server: &Server) -> Vec<String> {
    let mut names = Names::new();
    let mut problems = Vec::new();
    for case in load(file) {
        let path = fill(&case.path, &names);
        let body = fill(&case.body, &names);
        let answer = server.send(&case.method, &path, &case.headers, body).await;
        let records = server.new_records().await;
        let checked = check(file, &case, &answer, &mut names)
            .and_then(|expected| check_records(&expected.records, &records, &names));
        if let Err(problem) = checked {
            let answered = format!("{} {} {:?}", answer.status, answer.body, records);
            problems.push(format!(
                "{file} / {}: {problem}\n    answered {answered}",
                case.name
            ));
        }
    }
    problems
}

/// Replays a file whose records go to Kafka; answers every deviation, the records that are due and the captured names.
pub(crate) async fn replay_to_kafka(file: &str, server: &Server) -> (Vec<String>, Vec<Due>, Names) {
    let (mut names, mut problems, mut due) = (Names::new(), Vec::new(), Vec::new());
    for case in load(file) {
        let path = fill(&case.path, &names);
        let body = fill(&case.body, &names);
        let answer = server.send(&case.method, &path, &case.headers, body).await;
        match check(file, &case, &answer, &mut names) {
            Ok(expected) => due.extend(expected.records.into_iter().map(|(topic, value)| Due {
                case: format!("{file} / {}", case.name),
                topic,
                value,
            })),
            Err(problem) => problems.push(format!("{file} / {}: {problem}", case.name)),
        }
    }
    (problems, due, names)
}

/// Compares status, headers and body; answers what was expected.
fn check(file: &str, case: &Case, answer: &Answer, names: &mut Names) -> Result<Expected, String> {
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
    Ok(expected)
}

fn check_records(
    expected: &[(String, Value)],
    records: &[(String, Value)],
    names: &Names,
) -> Result<(), String> {
    if records.len() != expected.len() {
        return Err(format!("{} records instead of {}", records.len(), expected.len()));
    }
    for ((topic, value), (expected_topic, expected_value)) in records.iter().zip(expected) {
        if topic != expected_topic {
            return Err(format!("a record for {topic} instead of {expected_topic}"));
        }
        same(expected_value, value, names).map_err(|problem| format!("record{problem}"))?;
    }
    Ok(())
}

/// `{{name}}` replaced by what was captured under that name.
fn fill(text: &str, names: &Names) -> String {
    names.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}

/// Compares with placeholders; the error says where they differ.
pub(crate) fn same(expected: &Value, answered: &Value, names: &Names) -> Result<(), String> {
    match (expected, answered) {
        (Value::Object(wanted), Value::Object(got)) => {
            if let Some(key) = got.keys().find(|key| !wanted.contains_key(*key)) {
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

fn fits(wanted: &str, got: &str, names: &Names) -> bool {
    match wanted {
        "{{lastUpdate}}" => is_last_update(got),
        "{{uuid}}" => Uuid::parse_str(got).is_ok_and(|id| matches!(id.get_version_num(), 4 | 7)),
        _ => fill(wanted, names) == got,
    }
}

/// `2023-12-10 08:00:00.0000000`
fn is_last_update(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00 00:00:00.0000000"
}
