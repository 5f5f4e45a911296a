//! Bodies of `/mqtt`. Texts are taken as they are: nothing is converted.

use super::{Object, Read, one};
use crate::error::Error;
use crate::js::Js;
use crate::mqtt::is_filter;

/// MQTT's limit.
const MAX_TOPIC_BYTES: usize = 65_535;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) message: String,
}

pub(crate) fn publish(body: &Js) -> Read<Publish> {
    one(body, &["topic", "message"], |object| {
        let (topic, message) = (topic(object), text(object, "message"));
        Some(Publish {
            topic: topic?,
            message: message?,
        })
    })
}

/// The filter that is followed.
pub(crate) fn filter(topic: Option<&str>) -> Read<&str> {
    let fault = match topic {
        None | Some("") => "topic should not be empty",
        Some(topic) if !is_filter(topic) => "topic must be an MQTT topic filter",
        Some(topic) => return Ok(topic),
    };
    Err(Error::Fields(vec![fault.into()]))
}

fn topic(object: &mut Object<'_>) -> Option<String> {
    if matches!(object.field("topic"), None | Some(Js::Null))
        || object.field("topic") == Some(&Js::Text(String::new()))
    {
        object.fault("topic should not be empty");
    }
    let topic = text(object, "topic")?;
    if topic.contains(['+', '#']) {
        object.fault("topic must not contain the wildcards + and #");
    }
    // The broker closes a connection that sends one, and this one is shared by all who publish.
    if topic.contains(char::is_control) {
        object.fault("topic must not contain control characters");
    }
    if topic.len() > MAX_TOPIC_BYTES {
        object.fault(&format!("topic must not be longer than {MAX_TOPIC_BYTES} bytes"));
    }
    Some(topic)
}

fn text(object: &mut Object<'_>, name: &str) -> Option<String> {
    if let Some(Js::Text(text)) = object.field(name) {
        return Some(text.clone());
    }
    object.fault(&format!("{name} must be a string"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::js::json::parse_body;

    fn faults(body: &str) -> Vec<String> {
        match publish(&parse_body(body).unwrap()) {
            Err(Error::Fields(faults)) => faults,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_topic_and_a_message_are_texts_and_the_topic_names_one_topic() {
        let read = publish(&parse_body(r#"{"topic":"a/b","message":""}"#).unwrap()).unwrap();
        assert_eq!((read.topic.as_str(), read.message.as_str()), ("a/b", ""));
        assert_eq!(
            faults("{}"),
            [
                "topic should not be empty",
                "topic must be a string",
                "message must be a string"
            ]
        );
        assert_eq!(
            faults(r#"{"topic":"","message":"m"}"#),
            ["topic should not be empty"]
        );
        for not_text in ["7", "true", "[\"a\"]", "{\"a\":1}"] {
            let body = format!(r#"{{"topic":{not_text},"message":{not_text}}}"#);
            assert_eq!(
                faults(&body),
                ["topic must be a string", "message must be a string"]
            );
        }
        for wildcard in ["#", "a/#", "+/b", "a+b"] {
            let body = format!(r#"{{"topic":"{wildcard}","message":"m"}}"#);
            assert_eq!(faults(&body), ["topic must not contain the wildcards + and #"]);
        }
        assert_eq!(
            faults(r#"{"topic":"a\u0000","message":"m","qos":0}"#),
            [
                "property qos should not exist",
                "topic must not contain control characters"
            ]
        );
        assert_eq!(
            faults(r#"{"topic":"\b","message":"m"}"#),
            ["topic must not contain control characters"]
        );
        let long = format!(
            r#"{{"topic":"{}","message":"m"}}"#,
            "t".repeat(MAX_TOPIC_BYTES + 1)
        );
        assert_eq!(faults(&long), ["topic must not be longer than 65535 bytes"]);
    }

    #[test]
    fn a_filter_may_have_wildcards_where_mqtt_has_them() {
        for good in ["a", "#", "a/+/b", "a/#", "/", "$SYS/#"] {
            assert_eq!(filter(Some(good)).unwrap(), good);
        }
        for wrong in [
            Some(""),
            None,
            Some("a/#/b"),
            Some("a#"),
            Some("a+"),
            Some("$share/g/a"),
            Some("a\0"),
            Some("a\n"),
        ] {
            assert!(filter(wrong).is_err(), "{wrong:?}");
        }
    }
}
