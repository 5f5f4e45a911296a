//! `/live`, `/ready` and `/metrics` on a listener of their own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{Accepted, Listener};

/// Answers whether one part can do its work; `Err` says what keeps it from it, for an operator to read.
pub type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Longest that one check may take before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the admin endpoint tells.
#[derive(Clone)]
pub struct Admin {
    metrics: PrometheusHandle,
    checks: Arc<Vec<(&'static str, Check)>>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.checks.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Admin")
            .field("checks", &names)
            .finish_non_exhaustive()
    }
}

impl Admin {
    pub fn new(metrics: PrometheusHandle, checks: Vec<(&'static str, Check)>) -> Self {
        Self {
            metrics,
            checks: Arc::new(checks),
        }
    }

    /// Serves until `stop`.
    pub async fn serve(self, listener: Listener, stop: CancellationToken, tasks: TaskTracker) {
        let closing = stop.clone();
        let connections = tasks.clone();
        listener
            .serve(stop, connections, move |connection: Accepted| {
                let (admin, closing) = (self.clone(), closing.clone());
                async move { admin.connection(connection, closing).await }
            })
            .await;
    }

    async fn connection(self, connection: Accepted, stop: CancellationToken) {
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(&request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(5))
            .keep_alive(true);
        let serving = http.serve_connection(TokioIo::new(connection.stream), service);
        tokio::select! {
            outcome = serving => if let Err(error) = outcome {
                tracing::debug!(%error, "admin connection ended");
            },
            () = stop.cancelled() => {}
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" => self.ready().await,
            "/metrics" => {
                self.metrics.run_upkeep();
                text(StatusCode::OK, self.metrics.render())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "/live, /ready and /metrics are here\n".into(),
            ),
        }
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let mut lines = String::new();
        let mut status = StatusCode::OK;
        for (name, check) in self.checks.iter() {
            let outcome = tokio::time::timeout(CHECK_TIMEOUT, check())
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())));
            match outcome {
                Ok(()) => lines.push_str(&format!("{name}: ready\n")),
                Err(why) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    lines.push_str(&format!("{name}: {why}\n"));
                }
            }
        }
        text(status, lines)
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::ListenerConfig;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_is_refused_with_the_reason_while_a_part_is_not() {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let fine: Check = Arc::new(|| Box::pin(async { Ok(()) }));
        let ill: Check = Arc::new(|| Box::pin(async { Err("the disk is full".into()) }));
        let admin = Admin::new(metrics, vec![("kafka", fine), ("spool", ill)]);
        let listener = Listener::bind("admin", ListenerConfig::new("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(admin.serve(listener, stop.clone(), TaskTracker::new()));

        let ready = get(address, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(
            ready.contains("kafka: ready") && ready.contains("spool: the disk is full"),
            "{ready}"
        );
        assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));
        stop.cancel();
    }
}
