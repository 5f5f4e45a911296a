//! What the fuzz targets need of a connection's layers; with the feature `fuzzing` alone.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::websocket::{self, WebSocketConfig};

/// The byte stream inside a WebSocket, from its upgrade request on.
pub async fn websocket<S>(
    stream: S,
    config: WebSocketConfig,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    websocket::accept(Box::new(stream), config)
        .await
        .map_err(io::Error::other)
}
