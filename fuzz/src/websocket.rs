//! The bytes inside a WebSocket, however they are cut into messages, frames and reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use shopfloor_runtime::fuzzing;
use shopfloor_runtime::websocket::WebSocketConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mqtt\r\n\r\n";
const MAX_MESSAGE_BYTES: usize = 512;
const MASK: [u8; 4] = [1, 2, 3, 4];

/// What a client's frames must come to.
#[derive(Default)]
struct Expected {
    /// Whole binary messages.
    bytes: Vec<u8>,
    /// Of a message whose last frame is still to come.
    begun: Option<Vec<u8>>,
    /// The client broke a rule or left: nothing that follows counts.
    over: bool,
    /// What follows may mean anything.
    unknown: bool,
}

/// The first byte says how many bytes a read gives; the others are a script of frames.
pub fn run(data: &[u8]) {
    let Some((piece, mut script)) = data.split_first() else {
        return;
    };
    let (mut sent, mut expected) = (UPGRADE.to_vec(), Expected::default());
    while let Some((step, rest)) = script.split_first() {
        let count = usize::from(rest.first().copied().unwrap_or_default()).min(rest.len().saturating_sub(1));
        let (payload, rest) = rest.get(1..).unwrap_or_default().split_at(count);
        script = rest;
        frame(*step, payload, &mut sent, &mut expected);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let client = Client {
        bytes: sent,
        at: 0,
        piece: usize::from(*piece).max(1),
        answered: false,
    };
    let got = runtime.block_on(read_all(client));
    assert!(
        got == expected.bytes || (expected.unknown && got.starts_with(&expected.bytes)),
        "bytes were lost, changed or made up: {got:?}, not {:?}",
        expected.bytes
    );
}

fn frame(step: u8, payload: &[u8], sent: &mut Vec<u8>, expected: &mut Expected) {
    let last = step & 0x80 != 0;
    // Control frames are whole and short.
    let control = |opcode: u8| 0x80 | opcode;
    let first = match step % 8 {
        0..=3 if expected.begun.is_some() => u8::from(last) << 7,
        0..=3 => u8::from(last) << 7 | 2,
        4 => control(9),
        5 => control(10),
        6 => control(8),
        // Whatever the fuzzer likes.
        _ => {
            (expected.over, expected.unknown) = (true, true);
            return sent.extend(payload);
        }
    };
    sent.push(first);
    match payload.len() {
        short @ ..126 => sent.push(0x80 | short as u8),
        long => sent.extend([0x80 | 126, (long >> 8) as u8, long as u8]),
    }
    sent.extend(MASK);
    sent.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    if first & 0x08 != 0 {
        expected.over |= step % 8 == 6 || payload.len() > 125;
        return;
    }
    let mut message = expected.begun.take().unwrap_or_default();
    message.extend(payload);
    expected.over |= message.len() > MAX_MESSAGE_BYTES;
    match (last, expected.over) {
        (true, false) => expected.bytes.extend(message),
        _ => expected.begun = Some(message),
    }
}

async fn read_all(client: Client) -> Vec<u8> {
    let config = WebSocketConfig {
        protocol: "mqtt",
        max_message_bytes: MAX_MESSAGE_BYTES,
    };
    let mut stream = fuzzing::websocket(client, config).await.expect("the upgrade");
    let (mut got, mut part) = (Vec::new(), [0; 7]);
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        got.extend(&part[..count]);
    }
    got
}

/// Sends at most `piece` bytes at a time, frames only once its request was answered, and reads everything that comes.
struct Client {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    answered: bool,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The library takes a request in many small pieces for an attack.
        let (end, piece) = match self.answered {
            true => (self.bytes.len(), self.piece),
            false => (UPGRADE.len(), UPGRADE.len()),
        };
        let count = piece.min(out.remaining()).min(end - self.at);
        out.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.answered = true;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
