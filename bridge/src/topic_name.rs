//! Names of Kafka topics: what Kafka takes, and which ones the migration client reads.

/// Topics that the migration client reads. A record that breaks its rules there kills it.
pub const CLIENT_TOPICS: [&str; 6] = [
    "material",
    "material_prices",
    "part_information",
    "machine",
    "supply_chain",
    "sales",
];

/// Kafka's own limit of a topic name, in bytes.
const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Whether Kafka takes this as a topic name; the error says why not.
pub fn topic_name_fault(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the topic name is empty".into());
    }
    if name == "." || name == ".." {
        return Err(format!("Kafka reserves the name {name:?}"));
    }
    if name.len() > MAX_TOPIC_NAME_BYTES {
        return Err(format!(
            "the topic name has {} bytes, Kafka takes {MAX_TOPIC_NAME_BYTES}",
            name.len()
        ));
    }
    match name.chars().find(|c| !is_topic_char(*c)) {
        Some(found) => Err(format!(
            "{name:?} holds {found:?}, which Kafka does not take in a topic name"
        )),
        None => Ok(()),
    }
}

/// Whether Kafka takes this character in a topic name.
pub(crate) fn is_topic_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}
