//! `shopfloor.example.toml` documents the settings: here it is held to be true and whole.

use toml::{Table, Value};

use super::Config;

const EXAMPLE: &str = include_str!("../../shopfloor.example.toml");

/// The example with its commented settings switched on.
fn everything() -> Table {
    let is_setting = |rest: &str| {
        let key: String = rest
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || "\"._".contains(*c))
            .collect();
        rest.starts_with("[[") || (!key.is_empty() && rest[key.len()..].starts_with(" = "))
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) => rest,
        _ => line,
    });
    toml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

/// The keys that serde says a table may have, when it meets one that it may not; none for a map.
fn allowed_keys(table: Table) -> Vec<String> {
    let error = table.try_into::<Config>().unwrap_err().to_string();
    let Some((_, expected)) = error.split_once("unknown field `no_such_key`, expected ") else {
        return Vec::new();
    };
    let line = expected.lines().next().unwrap_or_default();
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Paths of the keys that the table at `path` and those below it may have and have not.
fn missing(root: &Table, path: &[String], out: &mut Vec<String>) {
    let mut probed = root.clone();
    let mut here = &mut probed;
    for step in path {
        here = match here.get_mut(step).unwrap() {
            Value::Table(inner) => inner,
            Value::Array(items) => items[0].as_table_mut().unwrap(),
            other => panic!("{step} is no table: {other}"),
        };
    }
    let present = here.clone();
    here.insert("no_such_key".into(), Value::Integer(1));
    for key in allowed_keys(probed) {
        if !present.contains_key(&key) {
            out.push([path, &[key]].concat().join("."));
        }
    }
    for (key, value) in &present {
        let is_table = match value {
            Value::Array(items) => items.first().is_some_and(Value::is_table),
            value => value.is_table(),
        };
        if is_table {
            missing(root, &[path, std::slice::from_ref(key)].concat(), out);
        }
    }
}

#[test]
fn the_example_says_the_defaults() {
    let written: Config = toml::from_str(EXAMPLE).unwrap();
    assert_eq!(format!("{written:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn the_example_has_every_setting() {
    let mut lacking = Vec::new();
    missing(&everything(), &[], &mut lacking);
    assert_eq!(lacking, Vec::<String>::new(), "not in shopfloor.example.toml");
}

#[test]
fn a_setting_that_the_example_lacks_is_noticed() {
    let mut root = everything();
    let kafka = root["bridge"]["kafka"].as_table_mut().unwrap();
    kafka.remove("linger_ms").unwrap();
    let route = root["bridge"]["routes"][0].as_table_mut().unwrap();
    route.remove("stamp").unwrap();
    let mut lacking = Vec::new();
    missing(&root, &[], &mut lacking);
    assert_eq!(lacking, ["bridge.kafka.linger_ms", "bridge.routes.stamp"]);
}

#[test]
fn what_the_example_comments_out_can_be_switched_on() {
    let config: Config = everything().try_into().unwrap();
    assert!(config.bridge.api.url.is_some() && config.api.internal_token.is_some());
    assert_eq!(config.bridge.routes.len(), 1);
}

#[test]
fn secrets_are_not_in_what_is_logged_of_a_configuration() {
    let mut config: Config = everything().try_into().unwrap();
    config.api.database.url = "postgres://user:hidden@host/db".into();
    config.api.internal_token = Some("hidden".into());
    config.bridge.api.token = Some("hidden".into());
    let properties = &mut config.bridge.kafka.properties;
    properties.insert("sasl.password".into(), "hidden".into());
    let shown = format!("{config:?}");
    assert!(
        shown.contains("not shown") && !shown.contains("hidden"),
        "{shown}"
    );
}
