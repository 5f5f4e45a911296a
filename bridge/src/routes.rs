//! Which Kafka topic, key and contract an MQTT topic has.
//!
//! Filters are compiled once into a deterministic automaton over topic levels, so a lookup takes one step a
//! level, never backtracks and allocates nothing.
//!
//! Precedence, decided level by level from the left: an exact level beats `+` or `{name}`, which beats `#`. So for
//! `a/b`, the filter `a/#` beats `+/b`. Topics that start with `$` match only filters that spell their first level.
//!
//! A route with a telemetry schema takes protobuf too: on its own filter by content type, and on its filter
//! with `/pb` behind it, unless another route claims that filter.

mod automaton;
mod filter;
pub mod rule;
mod template;

use std::sync::Arc;

use shopfloor_runtime::Problem;

use crate::contract::Schema;
use crate::topic_name::CLIENT_TOPICS;
use automaton::{Automaton, Trie};
use filter::Filter;
use rule::RouteConfig;

pub use template::{Key, Template};

/// Most routes of a table.
const MAX_ROUTES: usize = 1_000;
/// Topic suffix that marks a protobuf payload.
const PROTOBUF_LEVEL: &str = "pb";

/// One compiled route.
#[derive(Debug)]
pub struct Route {
    /// Kafka topic.
    pub topic: Template,
    pub key: Key,
    pub schema: Schema,
    pub stamp: bool,
    pub headers: bool,
    /// The payload is protobuf whatever its content type says.
    pub protobuf: bool,
    /// The level that captures the machine.
    pub machine_level: Option<usize>,
    /// The topic may be resolved to a client topic of another schema and must be checked.
    pub open_topic: bool,
}

/// All routes, compiled.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    automaton: Automaton,
}

impl RouteTable {
    /// Compiles the routes, or lists every problem with paths as `routes[3].filter`.
    pub fn compile(configs: &[RouteConfig]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if configs.len() > MAX_ROUTES {
            problems.push(Problem::new(
                "routes",
                format!("{} routes", configs.len()),
                format!("use at most {MAX_ROUTES}"),
            ));
            return Err(problems);
        }
        let mut trie = Trie::default();
        let mut routes = Vec::new();
        let mut implied = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            let Some((filter, route)) = compile_route(config, &format!("routes[{index}]"), &mut problems)
            else {
                continue;
            };
            if let Some(with_suffix) = filter
                .with_level(PROTOBUF_LEVEL)
                .filter(|_| config.schema.is_telemetry())
            {
                implied.push((
                    with_suffix,
                    Route {
                        protobuf: true,
                        ..route.clone_parts()
                    },
                ));
            }
            if let Err(earlier) = trie.insert(&filter, routes.len()) {
                problems.push(Problem::new(
                    format!("routes[{index}].filter"),
                    format!("{:?} takes the same topics as routes[{earlier}]", config.filter),
                    "keep one of the two",
                ));
            }
            routes.push(Arc::new(route));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        for (filter, route) in implied {
            if trie.insert(&filter, routes.len()).is_ok() {
                routes.push(Arc::new(route));
            }
        }
        let automaton = trie.determinise().ok_or_else(|| {
            vec![Problem::new(
                "routes",
                "the filters overlap in too many ways",
                "use fewer wildcards in front of exact levels",
            )]
        })?;
        Ok(Self { routes, automaton })
    }

    /// The route of a topic, in one step a level.
    pub fn lookup(&self, topic: &str) -> Option<&Arc<Route>> {
        self.routes.get(self.automaton.lookup(topic)?)
    }

    /// Kafka topics that are known before the first message.
    pub fn static_topics(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(|route| route.topic.fixed())
    }
}

impl Route {
    fn clone_parts(&self) -> Self {
        Self {
            topic: self.topic.clone(),
            key: self.key.clone(),
            ..*self
        }
    }
}

fn compile_route(config: &RouteConfig, at: &str, problems: &mut Vec<Problem>) -> Option<(Filter, Route)> {
    let before = problems.len();
    let filter = match Filter::parse(&config.filter) {
        Ok(filter) => filter,
        Err((problem, remedy)) => {
            problems.push(Problem::new(format!("{at}.filter"), problem, remedy));
            return None;
        }
    };
    let mut at_fault = |place: &str, (problem, remedy): (String, String)| {
        problems.push(Problem::new(format!("{at}.{place}"), problem, remedy));
    };
    let topic = Template::kafka_topic(&config.topic, &filter)
        .map_err(|fault| at_fault("topic", fault))
        .ok();
    let key = Key::parse(config.key.as_deref(), config.schema, &filter)
        .map_err(|fault| at_fault("key", fault))
        .ok();
    if let Err(fault) = client_topic_fits(config) {
        at_fault("schema", fault);
    }
    if problems.len() > before {
        return None;
    }
    let route = Route {
        open_topic: topic.as_ref()?.fixed().is_none(),
        topic: topic?,
        key: key?,
        schema: config.schema,
        stamp: config.stamp,
        headers: config.headers,
        protobuf: false,
        machine_level: filter.capture("machine"),
    };
    Some((filter, route))
}

/// A client topic takes its own contract only: anything else may kill the migration client.
fn client_topic_fits(config: &RouteConfig) -> Result<(), (String, String)> {
    let topic = config.topic.as_str();
    if !CLIENT_TOPICS.contains(&topic) || config.schema.client_topic() == Some(topic) {
        return Ok(());
    }
    let remedy = match Schema::of_client_topic(topic) {
        Some(schema) => format!("use schema = \"{}\" or another topic", schema.name()),
        None => "use another topic: only the production API writes this one".into(),
    };
    Err((
        format!(
            "{:?} payloads do not fit the topic {topic:?} of the migration client",
            config.schema.name()
        ),
        remedy,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::rule::default_routes;
    use proptest::prelude::*;

    fn route(filter: &str, topic: &str) -> RouteConfig {
        RouteConfig {
            filter: filter.into(),
            topic: topic.into(),
            key: None,
            schema: Schema::Json,
            stamp: false,
            headers: false,
        }
    }

    fn table(filters: &[&str]) -> RouteTable {
        let routes: Vec<_> = filters
            .iter()
            .enumerate()
            .map(|(n, filter)| route(filter, &format!("t{n}")))
            .collect();
        RouteTable::compile(&routes).unwrap()
    }

    fn found<'a>(table: &'a RouteTable, topic: &str) -> Option<&'a str> {
        table.lookup(topic).and_then(|route| route.topic.fixed())
    }

    #[test]
    fn the_default_routes_take_what_the_machines_publish() {
        let table = RouteTable::compile(&default_routes()).unwrap();
        for (topic, kafka, protobuf) in [
            ("supply-chain", "supply_chain", false),
            ("part-information", "part_information", false),
            ("material", "material", false),
            ("factory/berlin/7/supply-chain", "supply_chain", false),
            ("factory/berlin/7/material", "material", false),
            ("supply-chain/pb", "supply_chain", true),
            ("factory/berlin/7/part-information/pb", "part_information", true),
        ] {
            let route = table.lookup(topic).unwrap();
            assert_eq!(
                (route.topic.fixed(), route.protobuf),
                (Some(kafka), protobuf),
                "{topic}"
            );
        }
        for topic in [
            "supply_chain",
            "supply-chain/",
            "/supply-chain",
            "factory/a/supply-chain",
            "supply-chain/x",
            "",
        ] {
            assert!(table.lookup(topic).is_none(), "{topic}");
        }
    }

    #[test]
    fn exact_beats_capture_beats_rest_from_the_left() {
        let table = table(&["a/#", "a/{x}/c", "a/b/c", "+/b", "#"]);
        assert_eq!(found(&table, "a/b/c"), Some("t2"));
        assert_eq!(found(&table, "a/x/c"), Some("t1"));
        assert_eq!(found(&table, "a/x/d"), Some("t0"));
        assert_eq!(found(&table, "a"), Some("t0"));
        assert_eq!(found(&table, "a/b"), Some("t0"));
        assert_eq!(found(&table, "x/b"), Some("t3"));
        assert_eq!(found(&table, "x/y"), Some("t4"));
    }

    #[test]
    fn a_dead_end_behind_an_exact_level_falls_back_to_the_wildcard() {
        let table = table(&["a/b/c", "{x}/b/d"]);
        assert_eq!(found(&table, "a/b/d"), Some("t1"));
        assert_eq!(found(&table, "a/b/e"), None);
    }

    #[test]
    fn wildcards_do_not_take_topics_that_start_with_a_dollar() {
        let table = table(&["#", "+/x", "$own/x"]);
        assert_eq!(found(&table, "$SYS/x"), None);
        assert_eq!(found(&table, "$own/x"), Some("t2"));
        assert_eq!(found(&table, "own/x"), Some("t1"));
    }

    #[test]
    fn two_routes_for_the_same_topics_are_a_problem() {
        let problems = RouteTable::compile(&[route("a/{x}", "t1"), route("a/+", "t2")]).unwrap_err();
        assert_eq!(problems[0].path, "routes[1].filter");
        assert!(problems[0].problem.contains("routes[0]"), "{}", problems[0]);
    }

    #[test]
    fn a_payload_that_is_not_checked_cannot_be_routed_to_a_client_topic() {
        for topic in CLIENT_TOPICS {
            let problems = RouteTable::compile(&[route("a", topic)]).unwrap_err();
            assert_eq!(problems[0].path, "routes[0].schema", "{topic}");
        }
    }

    #[test]
    fn an_explicit_route_beats_the_implied_protobuf_one() {
        let mut routes = default_routes();
        routes.push(route("supply-chain/pb", "other"));
        let table = RouteTable::compile(&routes).unwrap();
        assert_eq!(found(&table, "supply-chain/pb"), Some("other"));
    }

    /// What the precedence text says, by trying every filter.
    fn slow(filters: &[String], topic: &str) -> Option<usize> {
        fn rank(filter: &str, topic: &str) -> Option<Vec<u8>> {
            let (mut filters, mut topics) = (filter.split('/').peekable(), topic.split('/'));
            let mut rank = Vec::new();
            loop {
                match (filters.next(), topics.next()) {
                    (Some("#"), _) => {
                        rank.push(2);
                        return Some(rank);
                    }
                    (Some("+"), Some(_)) => rank.push(1),
                    (Some(a), Some(b)) if a == b => rank.push(0),
                    (None, None) => return Some(rank),
                    _ => return None,
                }
            }
        }
        filters
            .iter()
            .enumerate()
            .filter_map(|(n, filter)| rank(filter, topic).map(|rank| (rank, n)))
            .min()
            .map(|(_, n)| n)
    }

    fn arb_filter() -> impl Strategy<Value = String> {
        (prop::collection::vec("[abc+]", 1..5), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#".into());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn the_automaton_finds_what_trying_every_filter_finds(
            filters in prop::collection::btree_set(arb_filter(), 1..12),
            topics in prop::collection::vec(prop::collection::vec("[abcd]", 1..6), 1..20),
        ) {
            let filters: Vec<String> = filters.into_iter().collect();
            let table = table(&filters.iter().map(String::as_str).collect::<Vec<_>>());
            for topic in topics {
                let topic = topic.join("/");
                let expected = slow(&filters, &topic).map(|n| format!("t{n}"));
                prop_assert_eq!(found(&table, &topic), expected.as_deref(), "{} in {:?}", topic, filters);
            }
        }

        #[test]
        fn any_topic_is_looked_up_without_a_panic(topic in ".*") {
            let _route = RouteTable::compile(&default_routes()).unwrap().lookup(&topic);
        }
    }
}
