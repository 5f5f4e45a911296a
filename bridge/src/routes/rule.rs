//! One route as an operator writes it, and the routes that hold where none are written.

use serde::Deserialize;

use crate::contract::Schema;

/// One rule from MQTT topics to a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// MQTT topic filter: `+` and `#`, and `{name}` for one level that `topic` and `key` may use.
    pub filter: String,
    /// Kafka topic; `{name}` stands for what the filter captured.
    pub topic: String,
    /// Kafka key: text with `{name}` in it, `payload.machineId`, `payload.partId`, `payload.id`, `client_id` or
    /// `none`. Default: the machine, as the filter captures it (`{machine}`) or as the payload names it; for
    /// parts and materials their id; else the client id.
    #[serde(default)]
    pub key: Option<String>,
    /// What the payload must be.
    pub schema: Schema,
    /// Adds `isDeleted` and `lastUpdate` (reception time) where a payload lacks them.
    #[serde(default = "yes")]
    pub stamp: bool,
    /// Adds Kafka headers (gateway, sequence, record id, trace). They cost several allocations a record.
    #[serde(default)]
    pub headers: bool,
}

fn yes() -> bool {
    true
}

/// The routes of machines that publish as the migration client expects.
pub fn default_routes() -> Vec<RouteConfig> {
    let telemetry = [
        ("supply-chain", "supply_chain", Schema::SupplyChain),
        ("part-information", "part_information", Schema::PartInformation),
        ("material", "material", Schema::Material),
    ];
    let route = |filter: String, topic: &str, schema| RouteConfig {
        filter,
        topic: topic.into(),
        key: None,
        schema,
        stamp: true,
        headers: false,
    };
    telemetry
        .into_iter()
        .flat_map(|(name, topic, schema)| {
            [
                route(name.into(), topic, schema),
                route(format!("factory/{{site}}/{{machine}}/{name}"), topic, schema),
            ]
        })
        .collect()
}
