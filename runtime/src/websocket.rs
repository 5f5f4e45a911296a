//! A byte stream inside a WebSocket: binary messages, cut anywhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as _};
use http::{HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tungstenite::Message;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::stream::Stream;

/// Of one connection, at rest and at most.
const READ_CHUNK_BYTES: usize = 4 * 1024;
const MAX_UNSENT_BYTES: usize = 256 * 1024;
/// Of one message that is sent.
const MAX_SENT_BYTES: usize = 64 * 1024;

/// What is asked of a WebSocket client.
#[derive(Debug, Clone, Copy)]
pub struct WebSocketConfig {
    /// The protocol that it must ask for.
    pub protocol: &'static str,
    /// The longest message that it may send.
    pub max_message_bytes: usize,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            protocol: "",
            max_message_bytes: 64 * 1024,
        }
    }
}

/// The upgraded connection.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    messages: WebSocketStream<S>,
    /// What is left of the last message.
    rest: Bytes,
}

/// Answers the upgrade request. The caller sets the deadline.
pub(crate) async fn accept(
    stream: Box<dyn Stream>,
    config: WebSocketConfig,
) -> Result<WebSocket<Box<dyn Stream>>, tungstenite::Error> {
    let limits = tungstenite::protocol::WebSocketConfig::default()
        .read_buffer_size(READ_CHUNK_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNSENT_BYTES)
        .max_message_size(Some(config.max_message_bytes))
        .max_frame_size(Some(config.max_message_bytes));
    #[allow(clippy::result_large_err)] // the library's own signature
    let choose = |request: &Request, response: Response| choose_protocol(request, response, config.protocol);
    let messages = tokio_tungstenite::accept_hdr_async_with_config(stream, choose, Some(limits)).await?;
    Ok(WebSocket {
        messages,
        rest: Bytes::new(),
    })
}

#[allow(clippy::result_large_err)] // the library's own signature
fn choose_protocol(
    request: &Request,
    mut response: Response,
    protocol: &'static str,
) -> Result<Response, ErrorResponse> {
    let offered = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offered| offered.trim() == protocol);
    if !offered {
        let mut refused = ErrorResponse::new(Some(format!("ask for the WebSocket protocol {protocol:?}\n")));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refused);
    }
    response
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // Answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    let why = "a text message where only binary ones are allowed";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = self.rest.len().min(out.remaining());
        out.put_slice(self.rest.split_to(count).chunk());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let data = data.get(..MAX_SENT_BYTES).unwrap_or(data);
        ready!(Pin::new(&mut self.messages).poll_ready(cx)).map_err(io_error)?;
        let message = Message::Binary(Bytes::copy_from_slice(data));
        Pin::new(&mut self.messages)
            .start_send(message)
            .map_err(io_error)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_close(cx).map_err(io_error)
    }
}

fn io_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::ConnectionAborted.into()
        }
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
