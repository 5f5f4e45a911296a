//! Who may publish and subscribe to what.
//!
//! Rules are evaluated for one client at a time: those of its user and those of everybody. A denial wins over every
//! permission, and what no rule permits is refused. `%c` and `%u` stand for a whole level and are compared as text:
//! a client named `+` or `a/b` is never given more than its name.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use shopfloor_runtime::reload::Reload;

use crate::config::{Access, AclConfig, RuleConfig, read_rules};
use crate::topic_pattern::{Pattern, Who};
use crate::topics;

/// The rules in force; replaced whole.
#[derive(Debug)]
pub(crate) struct Acl {
    config: AclConfig,
    /// `None`: there are no rules, everything is permitted.
    rules: RwLock<Option<Arc<Rules>>>,
    generation: AtomicU64,
}

impl Reload for Acl {
    fn what(&self) -> &'static str {
        "acl"
    }

    fn files(&self) -> Vec<PathBuf> {
        self.config.file.iter().cloned().collect()
    }

    fn reload(&self) -> Result<(), String> {
        self.load()
    }
}

/// What a client may do with a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaySubscribe {
    No,
    /// Nothing that the filter selects is denied.
    All,
    /// Something that it selects is denied: each delivery is to be checked.
    Some,
}

impl Acl {
    /// Where there are rules, everything is refused until they were loaded.
    pub(crate) fn new(config: AclConfig) -> Self {
        let rules = config.is_on().then(|| Arc::new(Rules::default()));
        Self {
            config,
            rules: RwLock::new(rules),
            generation: AtomicU64::new(0),
        }
    }

    /// Compiles the configuration's rules and those of its file, and puts them in force. On an error the old ones
    /// stay.
    pub(crate) fn load(&self) -> Result<(), String> {
        let config = &self.config;
        if !config.is_on() {
            return Ok(());
        }
        let mut rules = Rules::default();
        rules.add(&config.rules)?;
        if let Some(file) = &config.file {
            rules.add(&read_rules(file)?)?;
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(rules));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Grows with every change of the rules.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn may_publish(&self, who: &Who<'_>, topic: &str) -> bool {
        self.rules().is_none_or(|rules| {
            rules.decide(who, |access| access.write, |pattern| pattern.covers(who, topic))
        })
    }

    /// Whether a message on `topic` may be delivered.
    pub(crate) fn may_receive(&self, who: &Who<'_>, topic: &str) -> bool {
        self.rules()
            .is_none_or(|rules| rules.decide(who, |access| access.read, |pattern| pattern.covers(who, topic)))
    }

    /// Decides on a valid filter. One member's part of a shared subscription cannot be filtered without loss to the
    /// group, so that such a filter must be free of denials.
    pub(crate) fn may_subscribe(&self, who: &Who<'_>, filter: &str) -> MaySubscribe {
        let Some(rules) = self.rules() else {
            return MaySubscribe::All;
        };
        let (shared, filter) = match topics::split_share(filter) {
            Some((group, filter)) => (group.is_some(), filter),
            None => return MaySubscribe::No,
        };
        if !rules.decide(who, |access| access.read, |pattern| pattern.covers(who, filter)) {
            return MaySubscribe::No;
        }
        let denied_in_part = rules.of(who).any(|rule| {
            rule.denies && rule.kind.read && rule.patterns.iter().any(|p| p.overlaps(who, filter))
        });
        match (denied_in_part, shared) {
            (false, _) => MaySubscribe::All,
            (true, true) => MaySubscribe::No,
            (true, false) => MaySubscribe::Some,
        }
    }
}

/// Compiled rules.
#[derive(Debug, Default)]
struct Rules {
    by_user: HashMap<String, Vec<Rule>>,
    everybody: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    denies: bool,
    kind: Kind,
    patterns: Arc<[Pattern]>,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    read: bool,
    write: bool,
}

impl From<Access> for Kind {
    fn from(access: Access) -> Self {
        Self {
            read: !matches!(access, Access::Write | Access::DenyWrite),
            write: !matches!(access, Access::Read | Access::DenyRead),
        }
    }
}

impl Rules {
    fn add(&mut self, rules: &[RuleConfig]) -> Result<(), String> {
        for (index, config) in rules.iter().enumerate() {
            let patterns = config
                .topics
                .iter()
                .map(|topic| Pattern::parse(topic).map_err(|why| format!("rule {index}: {topic:?} {why}")));
            let rule = Rule {
                denies: config.access.denies(),
                kind: config.access.into(),
                patterns: patterns.collect::<Result<_, _>>()?,
            };
            if config.users.is_empty() {
                self.everybody.push(rule);
                continue;
            }
            for user in &config.users {
                self.by_user.entry(user.clone()).or_default().push(rule.clone());
            }
        }
        Ok(())
    }

    fn of(&self, who: &Who<'_>) -> impl Iterator<Item = &Rule> {
        let own = who.user.and_then(|user| self.by_user.get(user));
        self.everybody.iter().chain(own.into_iter().flatten())
    }

    fn decide(
        &self,
        who: &Who<'_>,
        concerns: impl Fn(Kind) -> bool,
        selects: impl Fn(&Pattern) -> bool,
    ) -> bool {
        let mut permitted = false;
        for rule in self.of(who).filter(|rule| concerns(rule.kind)) {
            let usable = |pattern: &&Pattern| rule.denies || pattern.is_safe_for(who);
            if rule.patterns.iter().filter(usable).any(&selects) {
                if rule.denies {
                    return false;
                }
                permitted = true;
            }
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rules: &str) -> Acl {
        let config: AclConfig = toml::from_str(rules).unwrap();
        let acl = Acl::new(config);
        acl.load().unwrap();
        acl
    }

    fn who<'a>(user: &'a str, client_id: &'a str) -> Who<'a> {
        Who {
            user: (!user.is_empty()).then_some(user),
            client_id,
        }
    }

    const RULES: &str = r##"
        [[rules]]
        access = "readwrite"
        topics = ["public/#"]
        [[rules]]
        access = "deny"
        topics = ["public/secret"]
        [[rules]]
        access = "write"
        topics = ["devices/%c/up", "users/%u/#"]
        [[rules]]
        users = ["chief", "deputy"]
        access = "read"
        topics = ["devices/#"]
        [[rules]]
        users = ["deputy"]
        access = "deny_read"
        topics = ["devices/safe/#"]
    "##;

    #[test]
    fn without_rules_everything_is_permitted() {
        let acl = acl("");
        assert!(acl.may_publish(&who("", "c"), "a"));
        assert_eq!(acl.may_subscribe(&who("", "c"), "#"), MaySubscribe::All);
    }

    #[test]
    fn with_rules_what_none_permits_is_refused() {
        let acl = acl(RULES);
        let anybody = who("", "press");
        assert!(acl.may_publish(&anybody, "public/a"));
        assert!(!acl.may_publish(&anybody, "private/a"));
        assert_eq!(acl.may_subscribe(&anybody, "#"), MaySubscribe::No);
        assert_eq!(acl.may_subscribe(&anybody, "devices/#"), MaySubscribe::No);
    }

    #[test]
    fn publishing_and_subscribing_are_apart() {
        let acl = acl(RULES);
        assert!(acl.may_publish(&who("chief", "press"), "devices/press/up"));
        assert!(!acl.may_publish(&who("chief", "press"), "devices/other/up"));
        assert_eq!(
            acl.may_subscribe(&who("", "press"), "devices/press/up"),
            MaySubscribe::No
        );
        assert_eq!(
            acl.may_subscribe(&who("chief", "x"), "devices/+/up"),
            MaySubscribe::All
        );
    }

    #[test]
    fn a_denial_wins_and_what_it_denies_of_a_wider_subscription_is_not_delivered() {
        let acl = acl(RULES);
        let (anybody, deputy) = (who("", "c"), who("deputy", "c"));
        assert!(!acl.may_publish(&anybody, "public/secret"));
        assert_eq!(acl.may_subscribe(&anybody, "public/secret"), MaySubscribe::No);
        assert_eq!(acl.may_subscribe(&anybody, "public/#"), MaySubscribe::Some);
        assert_eq!(acl.may_subscribe(&anybody, "public/a/#"), MaySubscribe::All);
        assert!(!acl.may_receive(&anybody, "public/secret") && acl.may_receive(&anybody, "public/open"));
        assert_eq!(acl.may_subscribe(&deputy, "devices/safe/+"), MaySubscribe::No);
        assert_eq!(acl.may_subscribe(&deputy, "devices/+/up"), MaySubscribe::Some);
        assert_eq!(
            acl.may_subscribe(&deputy, "$share/g/devices/+/up"),
            MaySubscribe::No
        );
        assert_eq!(
            acl.may_subscribe(&deputy, "$share/g/devices/one/up"),
            MaySubscribe::All
        );
    }

    #[test]
    fn a_name_with_wildcards_or_levels_is_given_nothing_by_a_pattern() {
        let acl = acl(RULES);
        for name in ["+", "#", "a/b", "", "a+", "$SYS"] {
            let other = who(name, name);
            assert!(!acl.may_publish(&other, "devices/press/up"), "{name}");
            assert!(!acl.may_publish(&other, "users/press/a"), "{name}");
            assert!(!acl.may_publish(&other, "devices/a/b/up"), "{name}");
        }
        assert!(
            !acl.may_publish(&who("", "press"), "users//a"),
            "nobody is no user"
        );
    }

    #[test]
    fn a_name_with_levels_does_not_escape_a_denial() {
        let acl = acl(
            "[[rules]]\naccess = 'readwrite'\ntopics = ['#']\n[[rules]]\naccess = 'deny'\ntopics = ['closed/%u/#']",
        );
        assert!(!acl.may_publish(&who("a/b", "c"), "closed/a/b/x"));
        assert!(acl.may_publish(&who("a/b", "c"), "closed/a/c"));
        assert!(!acl.may_publish(&who("press", "c"), "closed/press"));
        assert_eq!(acl.may_subscribe(&who("+", "c"), "closed/x/#"), MaySubscribe::All);
    }

    #[test]
    fn wildcards_of_a_rule_do_not_reach_the_servers_own_topics() {
        let acl = acl("[[rules]]\naccess = 'read'\ntopics = ['#']");
        assert_eq!(acl.may_subscribe(&who("", "c"), "$SYS/#"), MaySubscribe::No);
        assert_eq!(acl.may_subscribe(&who("", "c"), "#"), MaySubscribe::All);
    }

    #[test]
    fn new_rules_that_are_wrong_leave_the_old_ones_in_force() {
        let mut acl = acl(RULES);
        acl.config = toml::from_str("[[rules]]\naccess = 'read'\ntopics = ['a/#/b']").unwrap();
        let why = acl.reload().unwrap_err();
        assert!(why.contains("a/#/b"), "{why}");
        assert!(acl.may_publish(&who("", "press"), "public/a"));
        assert_eq!(acl.generation(), 1);
    }
}
