//! `/mqtt`

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::api::Api;
use crate::body::Payload;
use crate::error::Error;
use crate::mqtt::{Delivery, Fault, Mqtt};
use crate::reply;
use crate::validate::mqtt as validate;

pub(crate) async fn publish(State(api): State<Api>, Payload(body): Payload) -> Answer {
    #[derive(Serialize)]
    struct Published {
        message: &'static str,
        value: String,
    }
    let wanted = validate::publish(&body)?;
    broker(&api)?
        .publish(wanted.topic, wanted.message.clone())
        .await?;
    Ok(reply::created(&Published {
        message: "Message published successfully",
        value: wanted.message,
    }))
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    topic: Option<String>,
}

/// Each message is an event without a name; what a client misses is an event `interrupted`, `resumed` or `overflow`.
pub(crate) async fn subscribe(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(wanted) = wanted.map_err(|rejected| Error::Malformed(rejected.body_text()))?;
    let filter = validate::filter(wanted.topic.as_deref())?;
    let mqtt = broker(&api)?;
    let subscription = mqtt.subscribe(filter).await?;
    let events = stream::unfold(subscription, |mut subscription| async {
        let delivery = subscription.next().await?;
        Some((event(delivery), subscription))
    });
    let heartbeat = KeepAlive::new().interval(Duration::from_millis(mqtt.config().heartbeat_ms));
    Ok(Sse::new(events).keep_alive(heartbeat).into_response())
}

fn broker(api: &Api) -> Result<&Mqtt, Fault> {
    api.mqtt.as_deref().ok_or(Fault::Off)
}

fn event(delivery: Delivery) -> Result<Event, axum::Error> {
    let (name, text) = match delivery {
        Delivery::Message { topic, payload } => return message(&topic, &payload),
        Delivery::Interrupted => (
            "interrupted",
            "the connection to a broker broke: its messages are missing from here on",
        ),
        Delivery::Resumed => ("resumed", "the connection to a broker is back"),
        Delivery::Overflow => (
            "overflow",
            "messages were not read fast enough: the stream ends here",
        ),
    };
    Ok(Event::default().event(name).data(text))
}

/// A payload that is no UTF-8 comes as `base64` in place of `message`.
fn message(topic: &str, payload: &Bytes) -> Result<Event, axum::Error> {
    #[derive(Serialize)]
    struct Message<'a> {
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    }
    let message = std::str::from_utf8(payload).ok();
    Event::default().json_data(Message {
        topic,
        message,
        base64: message.is_none().then(|| BASE64_STANDARD.encode(payload)),
    })
}
