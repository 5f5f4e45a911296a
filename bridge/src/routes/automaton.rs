//! Filters as an automaton over topic levels: a trie, made deterministic by subset construction.

use std::collections::{BTreeMap, HashMap};

use super::filter::Filter;

/// Most states; only filters that overlap in many wildcards come near it.
const MAX_STATES: usize = 100_000;

/// Finds the route of a topic in one step a level.
#[derive(Debug)]
pub(super) struct Automaton {
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

impl Automaton {
    pub(super) fn lookup(&self, topic: &str) -> Option<usize> {
        let mut levels = topic.split('/');
        let mut at = 0;
        if topic.starts_with('$') {
            at = find(&self.reserved, levels.next()?)?;
        }
        for level in levels {
            let state = self.states.get(at)?;
            at = find(&state.exact, level).or(state.other)?;
        }
        self.states.get(at)?.route
    }
}

fn find(sorted: &[(Box<str>, usize)], level: &str) -> Option<usize> {
    let at = sorted.binary_search_by(|(name, _)| (**name).cmp(level)).ok()?;
    sorted.get(at).map(|(_, next)| *next)
}

/// The filters as a trie, before they become an automaton.
#[derive(Debug)]
pub(super) struct Trie {
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
    pub(super) fn insert(&mut self, filter: &Filter, route: usize) -> Result<(), usize> {
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
    pub(super) fn determinise(&self) -> Option<Automaton> {
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
        Some(Automaton {
            states,
            reserved: reserved.into_boxed_slice(),
        })
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
