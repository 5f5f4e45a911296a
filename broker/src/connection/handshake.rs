//! From the first byte to a client that is let in, or told why not.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::admit::{Admitted, admit};
use super::buffer::ReadBuffer;
use super::client::Peer;
use super::parting;
use super::refusal::Refusal;
use crate::codec::{Connect, Packet, connect, decode};
use crate::hub::Hub;
use crate::metrics;

/// A CONNECT is far below this, will and all; nobody is known yet who could send more.
const MAX_CONNECT_BYTES: usize = 256 * 1024;

/// Reads CONNECT under its deadline and lets the client in, or tells it why not.
pub(crate) async fn handshake<S>(hub: &Arc<Hub>, stream: &mut S, peer: Peer) -> Option<Admitted>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + Duration::from_millis(hub.config.connect_timeout_ms);
    let mut input = ReadBuffer::new(MAX_CONNECT_BYTES.min(hub.config.max_packet_bytes));
    let connect = tokio::select! {
        connect = tokio::time::timeout_at(deadline, read_connect(stream, &mut input)) => {
            connect.unwrap_or(Err(Refusal::Timeout))
        }
        () = hub.stop.cancelled() => Err(Refusal::ShutDown),
    };
    input.set_max_packet_bytes(hub.config.max_packet_bytes);
    let address = peer.address;
    let mut max_packet_bytes = u32::MAX;
    let admitted = match connect {
        Ok(connect) => {
            max_packet_bytes = connect.max_packet_bytes;
            admit(hub, connect, peer, input, deadline).await
        }
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(admitted) => Some(admitted),
        Err(refusal) => {
            tracing::debug!(peer = %address, reason = refusal.kind(), "client refused: {refusal}");
            metrics::refused(refusal.kind());
            let mut out = BytesMut::new();
            refusal.connack(&mut out, max_packet_bytes);
            if !out.is_empty() {
                parting::tell(stream, &mut out).await;
                parting::linger(stream).await;
            }
            None
        }
    }
}

async fn read_connect<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut ReadBuffer,
) -> Result<Connect, Refusal> {
    loop {
        let count = std::future::poll_fn(|cx| input.poll_fill(stream, cx))
            .await
            .map_err(|_| Refusal::Gone)?;
        if input.first().is_some_and(|first| first != 0x10) {
            return Err(Refusal::NoConnect);
        }
        let frame = input.take_first().map_err(|error| Refusal::Decode {
            protocol: None,
            error,
        })?;
        if let Some((frame, header)) = frame {
            return decode_connect(&frame, header);
        }
        if count == 0 {
            return Err(Refusal::Gone);
        }
    }
}

fn decode_connect(frame: &Bytes, header: usize) -> Result<Connect, Refusal> {
    let protocol = connect::protocol_of(frame, header).map_err(|error| Refusal::Decode {
        protocol: None,
        error,
    })?;
    match decode(frame, 0..frame.len(), header, protocol) {
        Ok(Packet::Connect(connect)) => Ok(*connect),
        Ok(_) => Err(Refusal::NoConnect),
        Err(error) => Err(Refusal::Decode {
            protocol: Some(protocol),
            error,
        }),
    }
}
