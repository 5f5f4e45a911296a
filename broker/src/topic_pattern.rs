//! One topic pattern of a rule: a filter in which `%c` and `%u` may stand for whole levels.

/// The client that a rule is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) client_id: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Box<[Level]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    One,
    Rest,
    ClientId,
    User,
}

/// A level with the client's names filled in; those are text, whatever they contain.
#[derive(Debug, Clone, Copy)]
enum Filled<'a> {
    Text(&'a str),
    One,
    Rest,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err("goes on after '#'");
            }
            levels.push(match level {
                "+" => Level::One,
                "#" => Level::Rest,
                "%c" => Level::ClientId,
                "%u" => Level::User,
                text if text.contains(['+', '#']) => {
                    return Err("has a wildcard that does not stand alone in its level");
                }
                text if text.contains("%c") || text.contains("%u") => {
                    return Err("has %c or %u that does not stand alone in its level");
                }
                text => Level::Text(text.into()),
            });
        }
        Ok(Self(levels.into()))
    }

    /// Whether the names that it stands for are single levels without wildcards. Else it must permit nothing.
    pub(crate) fn is_safe_for(&self, who: &Who<'_>) -> bool {
        let plain =
            |name: &str| !name.is_empty() && !name.starts_with('$') && !name.contains(['/', '+', '#']);
        self.0.iter().all(|level| match level {
            Level::ClientId => plain(who.client_id),
            Level::User => who.user.is_some_and(plain),
            _ => true,
        })
    }

    fn filled<'a>(&'a self, who: &Who<'a>) -> impl Iterator<Item = Filled<'a>> {
        let who = *who;
        self.0.iter().flat_map(move |level| {
            let text: &str = match level {
                Level::Text(text) => text,
                Level::ClientId => who.client_id,
                Level::User => who.user.unwrap_or_default(),
                Level::One | Level::Rest => "",
            };
            text.split('/').map(move |text| match level {
                Level::One => Filled::One,
                Level::Rest => Filled::Rest,
                _ => Filled::Text(text),
            })
        })
    }

    /// Whether it selects every topic that `filter` selects; a topic name selects itself.
    pub(crate) fn covers(&self, who: &Who<'_>, filter: &str) -> bool {
        let (mut mine, mut levels) = (self.filled(who).peekable(), filter.split('/'));
        if filter.starts_with('$') && !matches!(mine.peek(), Some(Filled::Text(_))) {
            return false;
        }
        loop {
            match (mine.next(), levels.next()) {
                (Some(Filled::Rest), _) | (None, None) => return true,
                (Some(_), Some("#")) => return false,
                (Some(Filled::One), Some(_)) => {}
                // A name may be a plus sign; a filter's plus sign is no name.
                (Some(Filled::Text(text)), Some(level)) if text == level && level != "+" => {}
                _ => return false,
            }
        }
    }

    /// Whether there is a topic that both select.
    pub(crate) fn overlaps(&self, who: &Who<'_>, filter: &str) -> bool {
        let (mut mine, mut levels) = (self.filled(who).peekable(), filter.split('/'));
        let only_theirs = filter.starts_with('$') && !matches!(mine.peek(), Some(Filled::Text(_)));
        let only_mine = filter.starts_with(['+', '#'])
            && matches!(mine.peek(), Some(Filled::Text(text)) if text.starts_with('$'));
        if only_theirs || only_mine {
            return false;
        }
        loop {
            match (mine.next(), levels.next()) {
                (Some(Filled::Rest), _) | (_, Some("#")) | (None, None) => return true,
                (Some(Filled::One), Some(_)) | (Some(Filled::Text(_)), Some("+")) => {}
                (Some(Filled::Text(text)), Some(level)) if text == level => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topics;

    const NOBODY: Who<'static> = Who {
        user: None,
        client_id: "c",
    };

    #[test]
    fn a_pattern_that_no_broker_could_mean_is_refused() {
        for text in ["", "a/#/b", "a+", "x%c/y", "%u%c"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        for text in ["#", "/", "a//+", "%c/%u/#", "100%/a"] {
            assert!(Pattern::parse(text).is_ok(), "{text}");
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "", "+", "$a"]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map(
            "a filter",
            |(mut levels, rest)| {
                if rest {
                    levels.push("#");
                }
                let filter = levels.join("/");
                (!filter.is_empty()).then_some(filter)
            },
        )
    }

    fn topic() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "", "$a"]);
        prop::collection::vec(level, 1..5).prop_filter_map("a topic", |levels| {
            let topic = levels.join("/");
            (!topic.is_empty()).then_some(topic)
        })
    }

    proptest! {
        #[test]
        fn it_selects_the_topics_that_its_filter_selects(filter in filter(), topic in topic()) {
            let pattern = Pattern::parse(&filter).unwrap();
            prop_assert_eq!(pattern.covers(&NOBODY, &topic), topics::matches(&filter, &topic));
        }

        #[test]
        fn a_covered_filter_selects_nothing_else(mine in filter(), theirs in filter(), topic in topic()) {
            let pattern = Pattern::parse(&mine).unwrap();
            if pattern.covers(&NOBODY, &theirs) && topics::matches(&theirs, &topic) {
                prop_assert!(topics::matches(&mine, &topic));
            }
        }

        #[test]
        fn what_both_select_is_an_overlap(mine in filter(), theirs in filter(), topic in topic()) {
            let pattern = Pattern::parse(&mine).unwrap();
            if topics::matches(&mine, &topic) && topics::matches(&theirs, &topic) {
                prop_assert!(pattern.overlaps(&NOBODY, &theirs));
            }
        }
    }
}
