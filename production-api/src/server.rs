//! Connections in, requests to the stack: HTTP/1.1 and h2c on one port.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use shopfloor_runtime::accept::{Accepted, Listener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::api::Api;
use crate::mqtt::Mqtt;
use crate::outbox::Relay;
use crate::rate_limit::ClientAddress;
use crate::stack::{self, Stack};
use crate::unit_stream::UnitStreams;
use crate::upkeep;

/// Time for a request's head, and how long an idle HTTP/1.1 connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Concurrent h2c streams on one connection.
const MAX_STREAMS: u32 = 200;
/// Largest HTTP/1.1 head.
const MAX_HEAD_BYTES: usize = 32 * 1024;

impl Api {
    /// Starts on `tasks` what works without a request, until `stop`: the outbox relay and the upkeep. Once a process,
    /// and [`Api::start_upkeep`] instead where there is no Kafka.
    pub fn start_background(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        let relay = Relay::new(
            self.store.clone(),
            Arc::clone(&self.publisher),
            self.config.outbox.clone(),
        );
        tasks.spawn(relay.run(stop.clone()));
        self.start_upkeep(stop, tasks);
    }

    /// Starts the upkeep alone: sweep of the quarantine, trimming of the ledger, gauges.
    pub fn start_upkeep(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        let (store, config, stop) = (self.store.clone(), Arc::clone(&self.config), stop.clone());
        tasks.spawn(async move { Box::pin(upkeep::run(store, &config, stop)).await });
    }

    /// Serves `listener` until `stop`; requests under way are finished on `tasks`.
    pub async fn serve(mut self, listener: Listener, stop: CancellationToken, tasks: TaskTracker) {
        self.mqtt = Mqtt::new(&self.config.mqtt, &stop, &tasks).map(Arc::new);
        if let Some(identity) = &self.identity {
            identity.start(&stop, &tasks);
        }
        let streams = UnitStreams::new(&self.config.unit_stream, &self.store, &stop, &tasks);
        self.unit_streams = Some(Arc::new(streams));
        let stack = stack::build(&self);
        let stopping = stop.clone();
        listener
            .serve(stop, tasks, move |connection: Accepted| {
                serve_connection(connection, stack.clone(), stopping.clone())
            })
            .await;
    }
}

async fn serve_connection(connection: Accepted, stack: Stack, stop: CancellationToken) {
    let Accepted { stream, peer, .. } = connection;
    let service = stack.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ClientAddress(peer));
        request
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(HEAD_TIMEOUT);
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, error = error.as_ref() as &dyn std::error::Error, "a connection ended badly");
    }
}
