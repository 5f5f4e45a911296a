//! Answers of 5xx in the log: a fault of this service each time, an outage of what it stands on at intervals. Every one is
//! counted (`shopfloor_api_requests_failed_total`), so the log need not be a line a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;

/// An outage is said again after this.
const OUTAGE_EVERY: Duration = Duration::from_secs(10);

/// Why an answer is a 5xx. A response extension.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// As the metric has it.
    pub(crate) kind: &'static str,
    /// For operators.
    pub(crate) cause: String,
}

/// When each kind of outage was last said. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailureLog(Arc<Mutex<HashMap<&'static str, Said>>>);

#[derive(Debug)]
struct Said {
    at: Instant,
    /// Since then, without a line of their own.
    more: u64,
}

impl FailureLog {
    /// `None` where it was said a moment ago; else how often it happened since.
    fn due(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match said.get_mut(kind) {
            Some(said) if now.saturating_duration_since(said.at) < OUTAGE_EVERY => {
                said.more += 1;
                None
            }
            found => {
                let more = found.map_or(0, |said| said.more);
                said.insert(kind, Said { at: now, more: 0 });
                Some(more)
            }
        }
    }
}

/// Writes what `reply` has left beside the answer.
pub(crate) async fn log(State(log): State<FailureLog>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(Failure { kind, cause }) = response.extensions_mut().remove() else {
        return response;
    };
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(kind, cause, "a request failed");
    } else if let Some(more) = log.due(kind, Instant::now()) {
        let status = response.status().as_u16();
        tracing::warn!(kind, status, cause, more, "requests cannot be served now");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_in_a_while_and_how_often_it_was_met() {
        let (log, start) = (FailureLog::default(), Instant::now());
        assert_eq!(log.due("postgres_unavailable", start), Some(0));
        for second in 1..10 {
            let now = start + Duration::from_secs(second);
            assert_eq!(log.due("postgres_unavailable", now), None);
        }
        assert_eq!(
            log.due("overloaded", start),
            Some(0),
            "another kind is said at once"
        );
        assert_eq!(log.due("postgres_unavailable", start + OUTAGE_EVERY), Some(9));
        assert_eq!(log.due("postgres_unavailable", start + OUTAGE_EVERY), None);
    }
}
