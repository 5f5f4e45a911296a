//! Topic filters against matching them one by one.

use shopfloor_bridge::contract::Schema;
use shopfloor_bridge::routes::RouteTable;
use shopfloor_bridge::routes::rule::RouteConfig;

/// Lines of text: the last is a topic, those before it are filters.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n').collect::<Vec<_>>();
    let Some(topic) = lines.pop() else { return };
    let routes = lines
        .iter()
        .take(16)
        .map(|filter| route(filter))
        .collect::<Vec<_>>();
    let Ok(table) = RouteTable::compile(&routes) else {
        return;
    };
    let found = table.lookup(topic).is_some();
    let expected = routes.iter().any(|route| selects(&route.filter, topic));
    assert_eq!(found, expected, "{lines:?} and {topic:?}");
}

fn route(filter: &str) -> RouteConfig {
    RouteConfig {
        filter: filter.into(),
        topic: "telemetry".into(),
        key: Some("none".into()),
        schema: Schema::Json,
        stamp: false,
        headers: false,
    }
}

/// As the standard has it; `{name}` is a `+`.
fn selects(filter: &str, topic: &str) -> bool {
    let wild = |level: &str| level == "+" || level.starts_with('{');
    let mut levels = topic.split('/');
    for (at, level) in filter.split('/').enumerate() {
        let reserved = at == 0 && topic.starts_with('$');
        match (level, levels.next()) {
            ("#", _) => return !reserved,
            (level, Some(name)) if level == name || (wild(level) && !reserved) => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
