//! The production API sink: protobuf batches, one after the other.
//!
//! A batch is repeated until the API answers it; the API knows each record by its id, so a repetition changes
//! nothing there. What it refuses is split until the bad record stands alone, which becomes a dead letter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use shopfloor_proto::v1::{TelemetryBatch, TelemetryBatchRefused, TelemetryBatchResult, TelemetryRecord};
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::backoff::Backoff;
use crate::config::ApiSinkConfig;
use crate::contract;
use crate::dead_letters::{LastResort, as_dead_letter};
use crate::metrics;
use crate::record::{Envelope, RefusedBy};
use crate::spool::{Entry, ReadError, Refused, Spool, SpoolError, Stored};

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Longest pause that a `Retry-After` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long a dead letter waits for room in the spool. The room may depend on this very sink.
const MAX_ROOM_WAIT: Duration = Duration::from_secs(1);

/// The sink's parts.
#[derive(Debug)]
pub(crate) struct ApiSink {
    spool: Spool,
    progress: Arc<Progress>,
    config: ApiSinkConfig,
    gateway: String,
    last_resort: LastResort,
    client: Client<HttpConnector, Full<Bytes>>,
    uri: http::Uri,
    authorization: Option<HeaderValue>,
}

/// A record that the API is to have, with what it came from.
struct Pending {
    stored: Stored,
    record: TelemetryRecord,
}

/// What the API said to one batch.
enum Answer {
    Stored,
    Refused(Refusal),
    Later {
        why: String,
        retry_after: Option<Duration>,
    },
}

/// It will never take the batch as it is.
struct Refusal {
    reason: String,
    /// The record that causes it, where the API names one.
    record: Option<usize>,
}

/// The sink was told to stop with a batch in hand.
struct Stopped;

impl ApiSink {
    /// The error says what is wrong with the configuration.
    pub(crate) fn new(
        spool: Spool,
        progress: Arc<Progress>,
        config: ApiSinkConfig,
        gateway: String,
        last_resort: LastResort,
    ) -> Result<Self, String> {
        let base = config.url.as_deref().unwrap_or_default().trim_end_matches('/');
        let uri = format!("{base}{}", shopfloor_proto::INGEST_PATH);
        let uri = uri
            .parse()
            .map_err(|error| format!("{base:?} is not a base URL: {error}"))?;
        let authorization = config.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| "the token holds a character that an HTTP header cannot carry".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_millis(config.timeout_ms.into())));
        Ok(Self {
            spool,
            progress,
            gateway,
            last_resort,
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            authorization: authorization.transpose()?,
            config,
        })
    }

    /// Runs until it is told to stop, or the spool ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut reader = self.spool.reader(self.progress.cursor());
        let mut backoff = self.backoff();
        let (records, bytes) = (
            self.config.max_batch_records as usize,
            self.config.max_batch_bytes as usize,
        );
        loop {
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                read = reader.next(records, bytes) => read,
            };
            match read {
                Ok(batch) => {
                    backoff.reset();
                    if self.deliver(batch, &stop).await.is_err() {
                        return;
                    }
                }
                Err(ReadError::Closed) => return,
                Err(ReadError::Lost { sequences, cause }) => {
                    let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
                    tracing::error!(first, last, %cause, "records are lost in the spool; the API sink goes on behind them");
                    metrics::lost(
                        self.progress.sink(),
                        sequences.end.saturating_sub(sequences.start),
                    );
                }
                Err(error) => {
                    self.progress.stuck(error.to_string());
                    if self.wait(backoff.pause(), &stop).await.is_err() {
                        return;
                    }
                }
            }
            self.progress.advance(reader.position());
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(self.config.max_backoff_ms.into()))
    }

    async fn wait(&self, pause: Duration, stop: &CancellationToken) -> Result<(), Stopped> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = stop.cancelled() => Err(Stopped),
        }
    }

    /// Returns when the API has, or the dead letters have, every record of the batch.
    async fn deliver(&self, batch: Vec<Stored>, stop: &CancellationToken) -> Result<(), Stopped> {
        let mut pending = Vec::with_capacity(batch.len());
        for stored in batch {
            match to_record(&stored) {
                Ok(Some(record)) => pending.push(Pending { stored, record }),
                Ok(None) => {}
                Err(reason) => self.dead_letter(&stored, &reason, stop).await?,
            }
        }
        // Parts of the batch that are still to be posted, the next one last.
        let mut parts = vec![pending];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let Some(refusal) = self.post_until_answered(&mut part, stop).await? else {
                continue;
            };
            match part.as_slice() {
                [alone] => {
                    metrics::refused(self.progress.sink());
                    self.dead_letter(&alone.stored, &refusal.reason, stop).await?;
                }
                _ => split(part, refusal.record, &mut parts),
            }
        }
        Ok(())
    }

    /// `None` when the API has stored the part.
    async fn post_until_answered(
        &self,
        part: &mut [Pending],
        stop: &CancellationToken,
    ) -> Result<Option<Refusal>, Stopped> {
        let body = self.encode(part);
        let mut backoff = self.backoff();
        loop {
            let begin = Instant::now();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Stopped),
                answer = self.post(body.clone()) => answer,
            };
            metrics::api_batch(begin.elapsed().as_secs_f64());
            let (why, retry_after) = match answer {
                Answer::Stored => {
                    self.progress.flows();
                    return Ok(None);
                }
                Answer::Refused(refusal) => return Ok(Some(refusal)),
                Answer::Later { why, retry_after } => (why, retry_after),
            };
            metrics::retried(self.progress.sink(), "not_answered");
            self.progress.stuck(format!(
                "the production API does not take records ({why}); they wait in the spool"
            ));
            let pause = backoff.pause();
            self.wait(
                retry_after.map_or(pause, |asked| asked.min(MAX_RETRY_AFTER).max(pause)),
                stop,
            )
            .await?;
        }
    }

    fn encode(&self, part: &mut [Pending]) -> Bytes {
        let records = part
            .iter_mut()
            .map(|pending| std::mem::take(&mut pending.record))
            .collect();
        let batch = TelemetryBatch {
            gateway: self.gateway.clone(),
            records,
        };
        let body = batch.encode_to_vec().into();
        for (pending, record) in part.iter_mut().zip(batch.records) {
            pending.record = record;
        }
        body
    }

    async fn post(&self, body: Bytes) -> Answer {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static(shopfloor_proto::CONTENT_TYPE),
        );
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let later = |why: String| Answer::Later {
            why,
            retry_after: None,
        };
        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| describe(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((head, body.to_bytes()))
        };
        match tokio::time::timeout(Duration::from_millis(self.config.timeout_ms.into()), exchange).await {
            Err(_elapsed) => later(format!("no answer within {} ms", self.config.timeout_ms)),
            Ok(Err(why)) => later(why),
            Ok(Ok((head, body))) => interpret(head.status, &head.headers, &body),
        }
    }

    /// Puts the record back into the spool, as a dead letter on its way to Kafka's dead-letter topic.
    async fn dead_letter(
        &self,
        stored: &Stored,
        reason: &str,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        tracing::warn!(
            sequence = stored.sequence,
            reason,
            "a record becomes a dead letter"
        );
        // Only records whose envelope was read come here.
        let Ok(envelope) = Envelope::decode(&stored.meta) else {
            return Ok(());
        };
        let entry = as_dead_letter(stored, &envelope, RefusedBy::Api, reason);
        let mut backoff = self.backoff();
        loop {
            if append(&self.spool, entry.clone()).await.is_ok() {
                return Ok(());
            }
            match self.last_resort.keep(entry.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => self
                    .progress
                    .stuck(format!("a dead letter cannot be stored: {error}")),
            }
            self.wait(backoff.pause(), stop).await?;
        }
    }
}

/// `None` for what the API does not get; the error is a dead letter's reason.
fn to_record(stored: &Stored) -> Result<Option<TelemetryRecord>, String> {
    // What cannot be read is kept by the Kafka sink, once.
    let Some(envelope) = Envelope::decode(&stored.meta)
        .ok()
        .filter(|envelope| envelope.destination.api())
    else {
        return Ok(None);
    };
    let body = contract::body(envelope.schema, &stored.payload).map_err(|violation| violation.to_string())?;
    Ok(Some(TelemetryRecord {
        record_id: Bytes::copy_from_slice(&envelope.record_id),
        sequence: stored.sequence,
        machine: envelope.machine.to_owned(),
        received_ms: envelope.received_ms,
        traceparent: envelope.traceparent.to_owned(),
        body,
    }))
}

/// Pushes the parts of a refused batch so that they are posted in order, the blamed record alone.
fn split(mut part: Vec<Pending>, blamed: Option<usize>, parts: &mut Vec<Vec<Pending>>) {
    match blamed.filter(|index| *index < part.len()) {
        Some(index) => {
            let behind = part.split_off(index + 1);
            let alone = part.split_off(index);
            parts.extend([behind, alone, part]);
        }
        None => {
            let second = part.split_off(part.len() / 2);
            parts.extend([second, part]);
        }
    }
}

fn interpret(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    match status {
        StatusCode::OK => match TelemetryBatchResult::decode(body) {
            Ok(_) => Answer::Stored,
            Err(error) => Answer::Later {
                why: format!("its answer cannot be read: {error}"),
                retry_after: None,
            },
        },
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            let refused = TelemetryBatchRefused::decode(body).unwrap_or_default();
            let said = if refused.reason.is_empty() {
                status.to_string()
            } else {
                refused.reason
            };
            Answer::Refused(Refusal {
                reason: format!("the production API refuses the record: {said}"),
                record: refused.record_index.and_then(|index| usize::try_from(index).ok()),
            })
        }
        other => Answer::Later {
            why: format!("it answers {other}"),
            retry_after: headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        },
    }
}

/// The innermost cause says what happened; hyper's own text only where.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

async fn append(spool: &Spool, entry: Entry) -> Result<(), SpoolError> {
    let mut entries = vec![entry];
    let deadline = tokio::time::Instant::now() + MAX_ROOM_WAIT;
    loop {
        let (sender, done) = tokio::sync::oneshot::channel();
        let report = Box::new(move |result: Result<_, SpoolError>| drop(sender.send(result.map(|_| ()))));
        match spool.append(entries, report) {
            Ok(()) => return done.await.unwrap_or(Err(SpoolError::Closed)),
            Err(Refused::Busy(back, _)) => entries = back,
            Err(_) => return Err(SpoolError::Closed),
        }
        if tokio::time::timeout_at(deadline, spool.room()).await.is_err() {
            return Err(SpoolError::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
