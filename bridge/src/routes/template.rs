//! Kafka topics and keys made of text and captured topic levels.

use crate::contract::Schema;
use crate::topic_name::{is_topic_char, topic_name_fault};

use super::filter::{Fault, Filter, is_name};

/// Text with captured levels in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Level(usize),
}

/// Where a record's Kafka key comes from. An empty or missing value falls back to the client id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Template(Template),
    MachineId,
    PartId,
    /// The entity's own id.
    Id,
    ClientId,
    None,
}

impl Template {
    fn parse(text: &str, filter: &Filter) -> Result<Self, Fault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').unwrap_or((behind, ""));
            if !is_name(name) || !behind.contains('}') {
                return Err((
                    format!("{text:?} has a '{{' that names no capture"),
                    "write {name}".into(),
                ));
            }
            let level = filter.capture(name).ok_or_else(|| {
                let known = filter.captures();
                let remedy = if known.is_empty() {
                    format!("write {{{name}}} as a level of the filter")
                } else {
                    format!("the filter captures {}", known.join(", "))
                };
                (format!("{{{name}}} is not captured by the filter"), remedy)
            })?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Level(level));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts })
    }

    /// A Kafka topic: its text must be legal, captured levels are made so.
    pub(super) fn kafka_topic(text: &str, filter: &Filter) -> Result<Self, Fault> {
        let template = Self::parse(text, filter)?;
        let sample: String = template
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Level(_) => "x",
            })
            .collect();
        topic_name_fault(&sample).map_err(|why| (why, "use letters, digits, '.', '_' and '-'".into()))?;
        Ok(template)
    }

    /// The text where no level is captured.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text for an MQTT topic.
    pub fn write(&self, topic: &str, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Level(level) => out.push_str(topic.split('/').nth(*level).unwrap_or_default()),
            }
        }
    }

    /// Appends the Kafka topic for an MQTT topic; characters that Kafka refuses become `_`. The error says why the
    /// result is still no topic.
    pub fn write_kafka_topic(&self, topic: &str, out: &mut String) -> Result<(), String> {
        let mut raw = String::new();
        self.write(topic, &mut raw);
        out.extend(raw.chars().map(|c| if is_topic_char(c) { c } else { '_' }));
        topic_name_fault(out)
    }
}

impl Key {
    pub(super) fn parse(text: Option<&str>, schema: Schema, filter: &Filter) -> Result<Self, Fault> {
        let Some(text) = text else {
            return Ok(Self::of_machine(schema, filter));
        };
        let units = schema == Schema::SupplyChain;
        let fits = |fits: bool, key: Self| {
            if fits {
                Ok(key)
            } else {
                Err((
                    format!("{text} is not a field of schema {:?}", schema.name()),
                    "use a capture, client_id or none".into(),
                ))
            }
        };
        match text {
            "" => Err(("it is empty".into(), "leave it out, or write none".into())),
            "none" => Ok(Self::None),
            "client_id" => Ok(Self::ClientId),
            "payload.machineId" => fits(units, Self::MachineId),
            "payload.partId" => fits(units, Self::PartId),
            "payload.id" => fits(
                matches!(schema, Schema::PartInformation | Schema::Material),
                Self::Id,
            ),
            _ if text.starts_with("payload.") => Err((
                format!("{text} cannot be a key"),
                "use payload.machineId, payload.partId or payload.id".into(),
            )),
            _ => Template::parse(text, filter).map(Self::Template),
        }
    }

    /// The default: one machine stays in one partition, and so in order.
    fn of_machine(schema: Schema, filter: &Filter) -> Self {
        if let Some(level) = filter.capture("machine") {
            return Self::Template(Template {
                parts: vec![Part::Level(level)],
            });
        }
        match schema {
            Schema::SupplyChain => Self::MachineId,
            Schema::PartInformation | Schema::Material => Self::Id,
            Schema::Json | Schema::Raw => Self::ClientId,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(template: &str, filter: &str) -> Result<Template, Fault> {
        Template::kafka_topic(template, &Filter::parse(filter).unwrap())
    }

    #[test]
    fn captured_levels_make_a_legal_topic() {
        let template = topic("telemetry.{site}.{machine}", "f/{site}/{machine}/x").unwrap();
        let mut out = String::new();
        template.write_kafka_topic("f/Werk Süd/7/x", &mut out).unwrap();
        assert_eq!(out, "telemetry.Werk_S_d.7");
    }

    #[test]
    fn a_capture_that_makes_no_topic_is_an_error() {
        let template = topic("{site}", "{site}/x").unwrap();
        for mqtt in ["/x", "./x", "../x", &format!("{}/x", "a".repeat(250))] {
            assert!(
                template.write_kafka_topic(mqtt, &mut String::new()).is_err(),
                "{mqtt}"
            );
        }
    }

    #[test]
    fn an_unknown_capture_is_named_with_the_known_ones() {
        let (problem, remedy) = topic("t.{line}", "{site}/x").unwrap_err();
        assert!(
            problem.contains("{line}") && remedy.contains("{site}"),
            "{problem}; {remedy}"
        );
        assert!(topic("t.{", "a").is_err());
        assert!(topic("t.{}", "a").is_err());
        assert!(topic("t}", "a").is_err());
    }

    #[test]
    fn the_default_key_is_the_machine() {
        let key = |filter: &str, schema| Key::parse(None, schema, &Filter::parse(filter).unwrap()).unwrap();
        assert_eq!(key("supply-chain", Schema::SupplyChain), Key::MachineId);
        assert_eq!(key("material", Schema::Material), Key::Id);
        assert_eq!(key("a", Schema::Raw), Key::ClientId);
        let mut out = String::new();
        match key("f/{machine}/x", Schema::Json) {
            Key::Template(template) => template.write("f/12/x", &mut out),
            other => panic!("{other:?}"),
        }
        assert_eq!(out, "12");
    }

    #[test]
    fn a_key_that_the_schema_has_not_is_refused() {
        let filter = Filter::parse("a").unwrap();
        for key in ["payload.machineId", "payload.x", "", "{machine}"] {
            assert!(Key::parse(Some(key), Schema::Material, &filter).is_err(), "{key}");
        }
    }
}
