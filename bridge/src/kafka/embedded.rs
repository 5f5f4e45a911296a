//! librdkafka's in-process cluster.

use std::error::Error;
use std::fmt;
use std::sync::mpsc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::fault::KafkaFault;
use crate::embedded_log::EmbeddedLog;

pub(super) type Mock = MockCluster<'static, DefaultProducerContext>;
type MockCall = Box<dyn FnOnce(&Mock) + Send>;

/// The in-process cluster. It is not `Send`, so a thread owns it and runs what it is sent.
pub(super) struct Embedded {
    pub(super) servers: String,
    calls: mpsc::Sender<MockCall>,
    pub(super) log: EmbeddedLog,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Embedded {
    pub(super) fn start() -> Result<Self, KafkaFault> {
        let fault = |source: Box<dyn Error + Send + Sync>| KafkaFault {
            servers: crate::config::EMBEDDED.into(),
            operation: "start",
            source,
        };
        let (calls, inbox) = mpsc::channel::<MockCall>();
        let (ready, started) = mpsc::channel();
        std::thread::Builder::new()
            .name("embedded-kafka".into())
            .spawn(move || {
                let cluster = match MockCluster::new(1) {
                    Ok(cluster) => cluster,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _gone = ready.send(Ok(cluster.bootstrap_servers()));
                while let Ok(call) = inbox.recv() {
                    call(&cluster);
                }
            })
            .map_err(|error| fault(error.into()))?;
        let servers = match started.recv() {
            Ok(started) => started.map_err(|error| fault(error.into()))?,
            Err(error) => return Err(fault(error.into())),
        };
        Ok(Self {
            servers,
            calls,
            log: EmbeddedLog::default(),
        })
    }

    pub(super) async fn create_topics(&self, names: Vec<String>, partitions: i32) -> Result<(), KafkaFault> {
        self.call("create topics", move |cluster| {
            for name in &names {
                match cluster.create_topic(name, partitions, 1) {
                    Ok(()) | Err(KafkaError::MockCluster(RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn call<R: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Mock) -> Result<R, KafkaError> + Send + 'static,
    ) -> Result<R, KafkaFault> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let fault = |source| KafkaFault {
            servers: self.servers.clone(),
            operation,
            source,
        };
        let sent = self
            .calls
            .send(Box::new(move |cluster| drop(reply.send(call(cluster)))));
        sent.map_err(|_| fault("the embedded cluster has stopped".into()))?;
        match answer.await {
            Ok(result) => result.map_err(|error| fault(error.into())),
            Err(error) => Err(fault(error.into())),
        }
    }
}
