//! Who may publish and subscribe to what.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use shopfloor_runtime::Problem;

use crate::codec::reason;
use crate::topic_pattern::Pattern;

/// Access rules. Without any, every client may publish and subscribe to everything; with the first one, what no
/// rule permits is refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AclConfig {
    /// TOML with more `[[rules]]`, read again when it changes and on SIGHUP.
    pub file: Option<PathBuf>,
    pub rules: Vec<RuleConfig>,
    pub refused_publish_v311: RefusedPublish,
    pub refused_subscribe_v5: RefusedSubscribe,
}

/// What becomes of a 3.1.1 client whose QoS 1 or 2 publish is refused: the protocol has no code for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedPublish {
    /// Its connection is closed, so that it never takes a message for delivered that is not.
    #[default]
    Close,
    /// It is acknowledged and the message is dropped and counted, as Mosquitto does.
    Acknowledge,
}

/// The reason code for an MQTT 5 client that may not subscribe; 3.1.1 has one code for every refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedSubscribe {
    /// 0x87.
    #[default]
    NotAuthorized,
    /// 0x80, which does not tell that there is a rule.
    Unspecified,
}

impl RefusedSubscribe {
    pub(crate) fn reason(self) -> u8 {
        match self {
            Self::NotAuthorized => reason::NOT_AUTHORIZED,
            Self::Unspecified => reason::UNSPECIFIED,
        }
    }
}

/// One rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Authenticated users; none is everybody, anonymous clients too.
    #[serde(default)]
    pub users: Vec<String>,
    pub access: Access,
    /// Topic filters; `%c` is the client id and `%u` the user, each for a whole level.
    pub topics: Vec<String>,
}

/// What a rule permits or denies. Reading is subscribing, writing is publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Read,
    Write,
    #[serde(rename = "readwrite")]
    ReadWrite,
    Deny,
    DenyRead,
    DenyWrite,
}

impl Access {
    pub(crate) fn denies(self) -> bool {
        matches!(self, Self::Deny | Self::DenyRead | Self::DenyWrite)
    }
}

impl AclConfig {
    /// Whether there are rules at all; an empty file permits nothing.
    pub(crate) fn is_on(&self) -> bool {
        self.file.is_some() || !self.rules.is_empty()
    }

    pub(crate) fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        rule_problems(&self.rules, &format!("{at}.rules"), out);
        let Some(file) = &self.file else { return };
        match read_rules(file) {
            Ok(rules) => {
                let mut inside = Vec::new();
                rule_problems(&rules, "rules", &mut inside);
                for problem in inside {
                    out.push(Problem::new(
                        format!("{at}.file"),
                        format!("{} of {} {}", problem.path, file.display(), problem.problem),
                        problem.remedy,
                    ));
                }
            }
            Err(why) => out.push(Problem::new(
                format!("{at}.file"),
                why,
                "name a TOML file of [[rules]] that this process may read",
            )),
        }
    }
}

/// The rules of a file: `[[rules]]` as in the configuration.
pub(crate) fn read_rules(path: &Path) -> Result<Vec<RuleConfig>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        rules: Vec<RuleConfig>,
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the access rules {} cannot be read: {error}", path.display()))?;
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        format!("{}:{line}: {}", path.display(), error.message())
    })?;
    Ok(file.rules)
}

fn rule_problems(rules: &[RuleConfig], at: &str, out: &mut Vec<Problem>) {
    for (index, rule) in rules.iter().enumerate() {
        if rule.topics.is_empty() {
            out.push(Problem::new(
                format!("{at}[{index}].topics"),
                "is empty: the rule says nothing",
                "name topic filters, or remove the rule",
            ));
        }
        for (number, topic) in rule.topics.iter().enumerate() {
            if let Err(why) = Pattern::parse(topic) {
                out.push(Problem::new(
                    format!("{at}[{index}].topics[{number}]"),
                    format!("{topic:?} {why}"),
                    "use a topic filter; %c and %u fill a whole level",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_rules_are_reported_at_their_place_also_those_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acl.toml");
        std::fs::write(&file, "[[rules]]\naccess = 'deny'\ntopics = ['a', 'x%c']\n").unwrap();
        let mut config: AclConfig = toml::from_str(
            "[[rules]]\naccess = 'read'\ntopics = []\n[[rules]]\naccess = 'write'\ntopics = ['a+']",
        )
        .unwrap();
        config.file = Some(file);
        let mut out = Vec::new();
        config.problems("mqtt.acl", &mut out);
        let paths = out
            .iter()
            .map(|problem| problem.path.as_str())
            .collect::<Vec<_>>();
        assert_eq!(
            paths,
            [
                "mqtt.acl.rules[0].topics",
                "mqtt.acl.rules[1].topics[0]",
                "mqtt.acl.file"
            ]
        );
        assert!(out[2].problem.starts_with("rules[0].topics[1] of "), "{}", out[2]);
    }

    #[test]
    fn a_file_that_is_missing_or_no_rules_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("broken.toml");
        std::fs::write(&broken, "\n[[rules]]\nacces = 'read'\n").unwrap();
        for (file, words) in [
            (dir.path().join("none.toml"), "cannot be read"),
            (broken, "broken.toml:"),
        ] {
            let config = AclConfig {
                file: Some(file),
                ..AclConfig::default()
            };
            let mut out = Vec::new();
            config.problems("mqtt.acl", &mut out);
            assert!(out.len() == 1 && out[0].problem.contains(words), "{out:?}");
        }
    }
}
