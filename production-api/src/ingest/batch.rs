//! `POST /internal/v1/telemetry`: a protobuf `TelemetryBatch` in, a `TelemetryBatchResult` out. Every refusal
//! carries a `TelemetryBatchRefused`; 503 means that the same batch is worth another try.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use shopfloor_proto::CONTENT_TYPE;
use shopfloor_proto::v1::{TelemetryBatch, TelemetryBatchRefused, TelemetryBatchResult};

use super::state::Ingest;
use crate::error::chain;
use crate::failures::Failure;
use crate::metrics;
use crate::store::telemetry::{Limits, Outcome, PersistError, persist};
use crate::telemetry::{Invalid, check};

/// Why a batch is not stored. The kind is the metric label.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("content-type: send {CONTENT_TYPE}")]
    ContentType,
    #[error("the body is larger than {max_bytes} bytes; send fewer records at a time")]
    TooLarge { max_bytes: usize },
    #[error("the body was not received whole: {0}")]
    Unreceived(String),
    #[error("the body is no TelemetryBatch: {0}")]
    Undecodable(String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("as many batches as may be are worked on; send it again")]
    Busy,
    #[error("{0}; admit or delete some of them, then the batch will be stored")]
    QuarantineFull(String),
    #[error("the database did not store the batch; send it again")]
    NotStored(#[source] PersistError),
}

impl Refusal {
    fn kind(&self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            Self::TooLarge { .. } => "too_large",
            Self::Unreceived(_) => "unreceived",
            Self::Undecodable(_) => "undecodable",
            Self::Invalid(_) => "invalid",
            Self::Busy => "busy",
            Self::QuarantineFull(_) => "quarantine_full",
            Self::NotStored(_) => "not_stored",
        }
    }

    /// The status, and after how many seconds the same batch may be sent again.
    fn status(&self) -> (StatusCode, Option<u32>) {
        match self {
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, None),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::Unreceived(_) | Self::Undecodable(_) | Self::Invalid(_) => (StatusCode::BAD_REQUEST, None),
            Self::Busy | Self::NotStored(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
            Self::QuarantineFull(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(30)),
        }
    }
}

pub(super) async fn post(State(ingest): State<Ingest>, headers: HeaderMap, body: Body) -> Response {
    let started = Instant::now();
    let outcome = take(&ingest, &headers, body).await;
    let label = outcome.as_ref().map_or_else(Refusal::kind, |_| "committed");
    metrics::ingest_answered(label, started.elapsed().as_secs_f64());
    match outcome {
        Ok(outcome) => {
            count(&outcome);
            let result = TelemetryBatchResult {
                stored: outcome.stored,
                duplicates: outcome.duplicates,
                quarantined: u32::try_from(outcome.quarantined.len()).unwrap_or(u32::MAX),
            };
            protobuf(StatusCode::OK, &result)
        }
        Err(refusal) => refuse(&refusal),
    }
}

async fn take(ingest: &Ingest, headers: &HeaderMap, body: Body) -> Result<Outcome, Refusal> {
    let config = &ingest.api.config.ingest;
    if !is_protobuf(headers) {
        return Err(Refusal::ContentType);
    }
    // Before the body: it bounds the memory that bodies take.
    let _permit = ingest.permits.try_acquire().map_err(|_| Refusal::Busy)?;
    let body = receive(body, config.max_batch_bytes).await?;
    if count_records(&body) > config.max_batch_records {
        // Told before decoding, where a record of two bytes would take a hundred times as many.
        let max = config.max_batch_records;
        return Err(Refusal::Invalid(Invalid {
            reason: format!("records: more than a batch may hold; send at most {max} at a time"),
            record_index: None,
        }));
    }
    let batch = TelemetryBatch::decode(body).map_err(|error| Refusal::Undecodable(error.to_string()))?;
    let batch = check(batch, config.max_batch_records)?;
    let limits = Limits {
        ledger_retention: Duration::from_secs(config.ledger_retention_s),
        quarantine_max_rows: config.quarantine_max_rows,
    };
    persist(&ingest.api.store, &batch, &limits)
        .await
        .map_err(|error| match error {
            PersistError::QuarantineFull { .. } => Refusal::QuarantineFull(error.to_string()),
            PersistError::Store(_) => Refusal::NotStored(error),
        })
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case(CONTENT_TYPE))
}

async fn receive(body: Body, max_bytes: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge { max_bytes }),
        Err(error) => Err(Refusal::Unreceived(error.to_string())),
    }
}

/// Records in an encoded batch, as far as it can be read; what is malformed is left to the decoder.
fn count_records(mut body: &[u8]) -> usize {
    const RECORDS: usize = 2;
    let mut count = 0;
    while body.has_remaining() {
        let Ok(tag) = prost::decode_length_delimiter(&mut body) else {
            break;
        };
        // A field's wire type: varint, 64 bits, length-delimited or 32 bits.
        let skipped = match tag & 7 {
            0 => prost::decode_length_delimiter(&mut body).map(|_| 0),
            1 => Ok(8),
            2 => prost::decode_length_delimiter(&mut body),
            5 => Ok(4),
            _ => break,
        };
        match skipped {
            Ok(bytes) if bytes <= body.remaining() => body.advance(bytes),
            _ => break,
        }
        count += usize::from(tag >> 3 == RECORDS);
    }
    count
}

fn count(outcome: &Outcome) {
    metrics::ingest_records("stored", outcome.stored.into());
    metrics::ingest_records("duplicate", outcome.duplicates.into());
    for reason in &outcome.quarantined {
        metrics::ingest_records(reason.as_str(), 1);
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let (status, retry_after_s) = refusal.status();
    if !status.is_server_error() {
        tracing::warn!(kind = refusal.kind(), reason = %refusal, "a telemetry batch was refused");
    }
    let record_index = match refusal {
        Refusal::Invalid(invalid) => invalid.record_index,
        _ => None,
    };
    let refused = TelemetryBatchRefused {
        reason: refusal.to_string(),
        record_index,
    };
    let mut response = protobuf(status, &refused);
    if let Some(seconds) = retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        let failure = Failure {
            kind: refusal.kind(),
            cause: chain(refusal),
        };
        response.extensions_mut().insert(failure);
    }
    response
}

fn protobuf(status: StatusCode, message: &impl Message) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
    (status, content_type, message.encode_to_vec()).into_response()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shopfloor_proto::v1::TelemetryRecord;

    use super::*;

    proptest! {
        #[test]
        fn records_are_counted_without_decoding(gateway in ".{0,20}", machines in proptest::collection::vec(".{0,300}", 0..40)) {
            let records: Vec<_> = machines
                .into_iter()
                .map(|machine| TelemetryRecord { machine, ..TelemetryRecord::default() })
                .collect();
            let count = records.len();
            let batch = TelemetryBatch { gateway, records };
            prop_assert_eq!(count_records(&batch.encode_to_vec()), count);
        }

        #[test]
        fn no_bytes_upset_the_count(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let counted = count_records(&bytes);
            if let Ok(batch) = TelemetryBatch::decode(&*bytes) {
                prop_assert!(counted >= batch.records.len() || bytes.iter().any(|byte| matches!(byte & 7, 3 | 4)));
            }
        }
    }

    #[test]
    fn the_content_type_is_read_without_its_parameters() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])
        };
        assert!(is_protobuf(&with("application/x-protobuf")));
        assert!(is_protobuf(&with("Application/X-Protobuf; proto=shopfloor.v1")));
        assert!(!is_protobuf(&with("application/json")));
        assert!(!is_protobuf(&HeaderMap::new()));
    }
}
