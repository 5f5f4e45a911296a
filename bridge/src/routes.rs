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

mod filter;
pub mod rule;
mod template;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shopfloor_runtime::Problem;

use crate::contract::Schema;
use crate::topic_name::CLIENT_TOPICS;
use rule::RouteConfig;

use filter::Filter;
pub use template::{Key, Template};

/// Most routes of a table.
const MAX_ROUTES: usize = 1_000;
/// Most states of the automaton; only filters that overlap in many wildcards come near it.
const MAX_STATES: usize = 100_000;
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
    states: Vec<State>,
    /// First steps of topics that start with `$`.
    reserved: Box<[(Box<str>, usize)]>,
}

#[derive(Debug, Default)]
struct State {
    /// Sorted by level.
    exact: Box<[(Box<str>, usize)]>,
    other: Option<usize>,
    /// The route of a topic that ends here.
    route: Option<usize>,
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
        let (states, reserved) = trie.determinise().ok_or_else(|| {
            vec![Problem::new(
                "routes",
                "the filters overlap in too many ways",
                "use fewer wildcards in front of exact levels",
            )]
        })?;
        Ok(Self {
            routes,
            states,
            reserved,
        })
    }

    /// The route of a topic, in one step a level.
    pub fn lookup(&self, topic: &str) -> Option<&Arc<Route>> {
        let mut levels = topic.split('/');
        let mut at = 0;
        if topic.starts_with('$') {
            at = find(&self.reserved, levels.next()?)?;
        }
        for level in levels {
            let state = self.states.get(at)?;
            at = find(&state.exact, level).or(state.other)?;
        }
        self.routes.get(self.states.get(at)?.route?)
    }

    /// Kafka topics that are known before the first message.
    pub fn static_topics(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(|route| route.topic.fixed())
    }
}

fn find(sorted: &[(Box<str>, usize)], level: &str) -> Option<usize> {
    let at = sorted.binary_search_by(|(name, _)| (**name).cmp(level)).ok()?;
    sorted.get(at).map(|(_, next)| *next)
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

/// The filters as a trie, before they become an automaton.
#[derive(Debug)]
struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    exact: BTreeMap<String, usize>,
    one: Option<usize>,
    here: Option<usize>,
    rest: Option<usize>,
}

/// Where a topic may stand after some levels. A state of the automaton is a list of these, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    At(usize),
    /// A `#` has matched: this route, whatever follows.
    Matched(usize),
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Trie {
    /// The error is the route that has the same filter.
    fn insert(&mut self, filter: &Filter, route: usize) -> Result<(), usize> {
        let mut at = 0;
        for level in filter.levels() {
            let fresh = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return Ok(());
            };
            let next = match level {
                Some(name) => *node.exact.entry(name.to_owned()).or_insert(fresh),
                None => *node.one.get_or_insert(fresh),
            };
            if next == fresh {
                self.nodes.push(Node::default());
            }
            at = next;
        }
        let Some(node) = self.nodes.get_mut(at) else {
            return Ok(());
        };
        let slot = if filter.takes_rest() {
            &mut node.rest
        } else {
            &mut node.here
        };
        match *slot {
            Some(earlier) => Err(earlier),
            None => {
                *slot = Some(route);
                Ok(())
            }
        }
    }

    /// Subset construction; `None` where it would take too many states.
    #[allow(clippy::type_complexity)]
    fn determinise(&self) -> Option<(Vec<State>, Box<[(Box<str>, usize)]>)> {
        let start = vec![Place::At(0)];
        let mut found: HashMap<Vec<Place>, usize> = HashMap::from([(start.clone(), 0)]);
        let mut queue = vec![start];
        let mut states = Vec::new();
        let mut intern = |places: Vec<Place>, queue: &mut Vec<Vec<Place>>| -> usize {
            let fresh = found.len();
            *found.entry(places).or_insert_with_key(|places| {
                queue.push(places.clone());
                fresh
            })
        };
        let mut reserved = Vec::new();
        for (name, next) in self
            .nodes
            .first()?
            .exact
            .iter()
            .filter(|(name, _)| name.starts_with('$'))
        {
            reserved.push((name.as_str().into(), intern(vec![Place::At(*next)], &mut queue)));
        }
        while let Some(places) = queue.get(states.len()).cloned() {
            let names: std::collections::BTreeSet<&str> = self
                .at(&places)
                .flat_map(|node| node.exact.keys().map(String::as_str))
                .collect();
            let exact = names
                .into_iter()
                .map(|name| (name.into(), intern(self.step(&places, Some(name)), &mut queue)))
                .collect();
            let rest = self.step(&places, None);
            let other = (!rest.is_empty()).then(|| intern(rest, &mut queue));
            states.push(State {
                exact,
                other,
                route: self.route(&places),
            });
            if queue.len() > MAX_STATES {
                return None;
            }
        }
        Some((states, reserved.into_boxed_slice()))
    }

    fn at<'a>(&'a self, places: &'a [Place]) -> impl Iterator<Item = &'a Node> {
        places.iter().filter_map(|place| match place {
            Place::At(node) => self.nodes.get(*node),
            Place::Matched(_) => None,
        })
    }

    /// The places after one more level, best first: `name`, or any level that no filter spells here.
    fn step(&self, places: &[Place], name: Option<&str>) -> Vec<Place> {
        let mut after = Vec::new();
        for place in places {
            let node = match place {
                Place::At(node) => self.nodes.get(*node),
                Place::Matched(_) => {
                    after.push(*place);
                    break;
                }
            };
            let Some(node) = node else { continue };
            after.extend(
                name.and_then(|name| node.exact.get(name))
                    .map(|next| Place::At(*next)),
            );
            after.extend(node.one.map(Place::At));
            if let Some(route) = node.rest {
                after.push(Place::Matched(route));
                break;
            }
        }
        after
    }

    fn route(&self, places: &[Place]) -> Option<usize> {
        places.iter().find_map(|place| match place {
            // `a/#` takes `a` itself too.
            Place::At(node) => self.nodes.get(*node).and_then(|node| node.here.or(node.rest)),
            Place::Matched(route) => Some(*route),
        })
    }
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
