//! The PROXY header, however its bytes come.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use shopfloor_runtime::proxy;
use tokio::io::{AsyncRead, ReadBuf};

/// At once and in pieces, the same is read: the client's address, and what follows the header.
pub fn run(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else {
        return;
    };
    let whole = read(bytes, usize::MAX);
    let pieces = read(bytes, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "the header depends on how its bytes come");
    if let Some((_, rest)) = whole {
        assert!(
            bytes.ends_with(&rest),
            "bytes behind the header were lost or changed"
        );
    }
}

/// The client and every byte behind the header; `None` where it is refused.
fn read(bytes: &[u8], piece: usize) -> Option<(Option<SocketAddr>, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut stream = Pieces { bytes, piece };
    let header = runtime.block_on(proxy::read_header(&mut stream)).ok()?;
    let rest = [&header.replay, stream.bytes].concat();
    Some((header.client, rest))
}

/// A stream that gives at most `piece` bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.bytes.len().min(self.piece).min(out.remaining());
        let (now, later) = self.bytes.split_at(count);
        out.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}
