//! An accepted connection: its first bytes may have been read already, and it holds its place among the open ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics;

/// Reads what came before it was handed over first, then the socket. Counts as open until it is dropped.
#[derive(Debug)]
pub struct Connection {
    prefix: Bytes,
    inner: TcpStream,
    _permit: Permit,
}

/// One place among a listener's connections.
#[derive(Debug)]
pub(crate) struct Permit {
    listener: &'static str,
    _place: OwnedSemaphorePermit,
}

impl Permit {
    pub(crate) fn new(listener: &'static str, place: OwnedSemaphorePermit) -> Self {
        metrics::accepted(listener);
        Self {
            listener,
            _place: place,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        metrics::closed(self.listener);
    }
}

impl Connection {
    pub(crate) fn new(prefix: Bytes, inner: TcpStream, permit: Permit) -> Self {
        Self {
            prefix,
            inner,
            _permit: permit,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, out);
        }
        let count = self.prefix.len().min(out.remaining());
        let replayed = self.prefix.split_to(count);
        out.put_slice(replayed.chunk());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
