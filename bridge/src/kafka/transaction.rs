//! Transactions of a producer: the four calls, off the tokio workers and in slices.
//!
//! librdkafka's calls block until the cluster has answered, which may be never. Each is given a moment and then called
//! again, which resumes it, for as long as the caller wants.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;

use super::producer::Producer;
use super::record::Undelivered;

/// The longest that a call keeps a thread, and so the end of the process, waiting.
const SLICE: Duration = Duration::from_millis(500);
/// Before a call that came back at once is made again.
const PAUSE: Duration = Duration::from_millis(20);

/// A call to the transaction's coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Takes the transactional id over: what another producer of that id has open is ended (committed where its commit
    /// had been asked for, else aborted), and nothing that it sends later is taken.
    Init,
    Begin,
    /// Also waits for whatever was handed over.
    Commit,
    /// Takes back what was handed over, as far as it is not sent.
    Abort,
}

impl<T: Send + Sync + 'static> Producer<T> {
    /// Makes the call, again and again while it can be resumed and `go_on` says so. The error says what has become of the
    /// transaction's records; after that of [`Step::Commit`] they may be there or not, which the next producer of the
    /// transactional id settles.
    pub async fn transact(&self, step: Step, go_on: impl Fn() -> bool) -> Result<(), Undelivered> {
        loop {
            let Some(inner) = self.inner() else {
                return Err(Undelivered::Again("the producer has stopped".into()));
            };
            let call = tokio::task::spawn_blocking(move || match step {
                Step::Init => inner.base.init_transactions(SLICE),
                Step::Begin => inner.base.begin_transaction(),
                Step::Commit => inner.base.commit_transaction(SLICE),
                Step::Abort => inner.base.abort_transaction(SLICE),
            });
            match call.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(KafkaError::Transaction(error))) if error.is_retriable() && go_on() => {
                    tracing::debug!(?step, %error, "the call is resumed");
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(KafkaError::Transaction(error))) => {
                    return Err(Undelivered::of(error.code(), error.string()));
                }
                Ok(Err(error)) => return Err(Undelivered::Again(error.to_string())),
                Err(error) => return Err(Undelivered::Again(error.to_string())),
            }
        }
    }
}
