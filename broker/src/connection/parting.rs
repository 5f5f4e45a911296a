//! The last packet to a client that is closed.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Time for it, and for the client to close after it.
const LAST_WRITE: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: u64 = 4 * 1024 * 1024;

/// Writes what is left and says that nothing more comes.
pub(crate) async fn tell<S: AsyncWrite + Unpin>(stream: &mut S, out: &mut BytesMut) {
    if !out.is_empty() {
        let _gone = tokio::time::timeout(LAST_WRITE, stream.write_all_buf(out)).await;
    }
    let _gone = tokio::time::timeout(LAST_WRITE, stream.shutdown()).await;
}

/// Reads on until the client has closed, bounded in time and bytes: closing a socket with unread bytes resets it,
/// and the reset can overtake the last packet that was written.
pub(crate) async fn linger<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut rest = stream.take(MAX_LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    let _gone = tokio::time::timeout(LAST_WRITE, tokio::io::copy(&mut rest, &mut nowhere)).await;
}
