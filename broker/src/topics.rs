//! The rules of topic names and topic filters.

/// Splits `$share/{group}/{filter}`; a plain filter has no group. `None` where the share itself is malformed.
pub(crate) fn split_share(filter: &str) -> Option<(Option<&str>, &str)> {
    let Some(shared) = filter.strip_prefix("$share/") else {
        // "$share" alone is an ordinary, if useless, filter for Mosquitto; it names no group here.
        return (filter != "$share").then_some((None, filter));
    };
    let (group, filter) = shared.split_once('/')?;
    let valid = !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty();
    valid.then_some((Some(group), filter))
}

/// Whether wildcards stand where they may: `+` fills a level, `#` fills the last one.
pub(crate) fn is_filter(filter: &str) -> bool {
    if filter.is_empty() {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wildcard = level.contains(['+', '#']);
        if wildcard && level.len() > 1 || level == "#" && levels.peek().is_some() {
            return false;
        }
    }
    true
}

/// Whether `name` lies within the limits of the configuration.
pub(crate) fn within_limits(name: &str, max_bytes: usize, max_levels: usize) -> bool {
    name.len() <= max_bytes && name.bytes().filter(|byte| *byte == b'/').count() < max_levels
}

/// Whether a valid `filter` selects `topic`. Wildcards at the start do not select topics that start with `$`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_alone_in_their_level_and_the_hash_comes_last() {
        for filter in ["a", "/", "a//b", "+", "#", "+/+", "a/+/b", "a/#", "+/#", "ü/+"] {
            assert!(is_filter(filter), "{filter} is valid");
        }
        for filter in ["", "a+", "a/b#", "#/a", "a/#/b", "++", "+a/b", "##"] {
            assert!(!is_filter(filter), "{filter} is not valid");
        }
    }

    #[test]
    fn a_share_names_a_group_and_a_filter() {
        assert_eq!(split_share("a/b"), Some((None, "a/b")));
        assert_eq!(split_share("$share/g/a/b"), Some((Some("g"), "a/b")));
        assert_eq!(split_share("$shared/g"), Some((None, "$shared/g")));
        for malformed in [
            "$share/",
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            "$share/g#/a",
            "$share",
        ] {
            assert_eq!(split_share(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_filter_selects_what_the_standard_says() {
        for (filter, topic) in [
            ("sport/#", "sport"),
            ("sport/#", "sport/a/b"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("#", "a/b"),
            ("$SYS/#", "$SYS/broker"),
            ("a//+", "a//b"),
            ("ü/+", "ü/ö"),
        ] {
            assert!(matches(filter, topic), "{filter} selects {topic}");
        }
        for (filter, topic) in [
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/broker"),
            ("+/broker", "$SYS/broker"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+/c", "a/b/d"),
        ] {
            assert!(!matches(filter, topic), "{filter} does not select {topic}");
        }
    }
}
