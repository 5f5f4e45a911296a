//! Whether a Kafka node is ready: it answers a metadata request and names itself.
//!
//! An open port says too little: the socket server listens before the broker is let into its cluster, and clients
//! that ask then get an empty cluster. The request is written by hand, so that the parts need no Kafka client:
//! Metadata, version 1, for no topic (<https://kafka.apache.org/protocol#The_Messages_Metadata>).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
const CORRELATION_ID: i32 = 7;
/// A single node's answer is some 60 bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// True when the node at `address` knows at least one broker that serves: itself.
pub(super) fn answers(address: SocketAddr) -> bool {
    matches!(brokers(address), Ok(count) if count > 0)
}

fn brokers(address: SocketAddr) -> io::Result<i32> {
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket.write_all(&request())?;
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let len = usize::try_from(i32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_ANSWER_BYTES {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut answer = vec![0; len];
    socket.read_exact(&mut answer)?;
    broker_count(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn request() -> Vec<u8> {
    let (api_key, api_version, client_id) = (3_i16, 1_i16, b"shopfloor");
    let mut body = Vec::new();
    body.extend(api_key.to_be_bytes());
    body.extend(api_version.to_be_bytes());
    body.extend(CORRELATION_ID.to_be_bytes());
    body.extend((client_id.len() as i16).to_be_bytes());
    body.extend(client_id);
    let no_topics = 0_i32;
    body.extend(no_topics.to_be_bytes());
    let mut framed = (body.len() as i32).to_be_bytes().to_vec();
    framed.extend(body);
    framed
}

/// The answer starts with the correlation id, then the array of brokers.
fn broker_count(answer: &[u8]) -> Option<i32> {
    let (correlation_id, rest) = answer.split_first_chunk()?;
    let (count, _brokers) = rest.split_first_chunk()?;
    (i32::from_be_bytes(*correlation_id) == CORRELATION_ID).then_some(i32::from_be_bytes(*count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = vec![0; request().len()];
            socket.read_exact(&mut asked).unwrap();
            socket.write_all(&answer).unwrap();
        });
        address
    }

    #[test]
    fn a_node_that_knows_no_broker_yet_is_not_ready() {
        assert!(!answers(answering(vec![0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0])));
        assert!(answers(answering(vec![0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 1])));
    }

    #[test]
    fn what_is_no_answer_to_the_request_is_not_ready() {
        for answer in [
            vec![],
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            vec![0, 0, 0, 2, 0, 0],
            vec![0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 1],
            vec![0xff; 64],
        ] {
            assert!(!answers(answering(answer.clone())), "{answer:?}");
        }
    }
}
