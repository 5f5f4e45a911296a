//! The PROXY protocol header in front of a connection.
//!
//! A listener either requires the header (it stands behind a load balancer, and nothing else may connect) or
//! knows nothing of it. Guessing would let any client name its own address.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use haproxy_protocol::{Error as HeaderError, ProxyHdrV1, ProxyHdrV2, RemoteAddress};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Whether connections of a listener start with a PROXY header (version 1 or 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Every connection starts with one; any other is closed.
    Required,
    /// None is read: a header is whatever the server's protocol makes of it, an error.
    #[default]
    Rejected,
}

/// Version 1 is at most 107 bytes; version 2 is bounded here, address block and TLVs together.
const MAX_HEADER_BYTES: usize = 1024;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection's header was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("the connection ended or failed inside the PROXY header")]
    Io(#[from] io::Error),
    #[error("the connection does not start with a valid PROXY header")]
    Invalid,
    #[error("the PROXY header is longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
}

/// The client's address as the header tells it, and what was read past the header.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// `None` for the proxy's own connections (v2 LOCAL, v1 UNKNOWN): health checks.
    pub client: Option<SocketAddr>,
    pub replay: Bytes,
}

/// Reads one header, at most [`MAX_HEADER_BYTES`]. The caller sets the deadline.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Header, ProxyError> {
    let mut buffer = BytesMut::with_capacity(256);
    loop {
        if let Some(header) = parse(&mut buffer)? {
            return Ok(header);
        }
        if buffer.len() >= MAX_HEADER_BYTES {
            return Err(ProxyError::TooLong);
        }
        let room = MAX_HEADER_BYTES - buffer.len();
        if (&mut *stream).take(room as u64).read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// `None` where the header is not complete yet.
fn parse(buffer: &mut BytesMut) -> Result<Option<Header>, ProxyError> {
    let v2 = buffer.iter().zip(V2_SIGNATURE).all(|(have, want)| have == want);
    let v1 = buffer.iter().zip(b"PROXY ").all(|(have, want)| have == want);
    let parsed = if buffer.is_empty() {
        return Ok(None);
    } else if v2 {
        if buffer.len() < V2_SIGNATURE.len() {
            return Ok(None);
        }
        ProxyHdrV2::parse(buffer).map(|(len, header)| (len, header.to_remote_addr()))
    } else if v1 {
        return parse_v1(buffer);
    } else {
        return Err(ProxyError::Invalid);
    };
    match parsed {
        Ok((len, address)) => finish(buffer, len, &address).map(Some),
        Err(HeaderError::Incomplete { .. }) => Ok(None),
        Err(HeaderError::Invalid | HeaderError::UnableToComplete) => Err(ProxyError::Invalid),
    }
}

fn parse_v1(buffer: &mut BytesMut) -> Result<Option<Header>, ProxyError> {
    // The version 1 parser wants the whole line; 107 bytes is its longest.
    let Some(end) = buffer.windows(2).take(107).position(|pair| pair == b"\r\n") else {
        return if buffer.len() > 107 {
            Err(ProxyError::Invalid)
        } else {
            Ok(None)
        };
    };
    let line = buffer.get(..end + 2).unwrap_or_default();
    if line.starts_with(b"PROXY UNKNOWN") {
        let replay = buffer.split_off(end + 2).freeze();
        return Ok(Some(Header { client: None, replay }));
    }
    match ProxyHdrV1::parse(line) {
        Ok((len, header)) => finish(buffer, len, &header.to_remote_addr()).map(Some),
        Err(_) => Err(ProxyError::Invalid),
    }
}

fn finish(buffer: &mut BytesMut, len: usize, address: &RemoteAddress) -> Result<Header, ProxyError> {
    let client = match address {
        RemoteAddress::Local => None,
        RemoteAddress::TcpV4 { src, .. } => Some(SocketAddr::V4(*src)),
        RemoteAddress::TcpV6 { src, .. } => Some(SocketAddr::V6(*src)),
        RemoteAddress::UdpV4 { .. } | RemoteAddress::UdpV6 { .. } | RemoteAddress::Invalid => {
            return Err(ProxyError::Invalid);
        }
    };
    if len > buffer.len() {
        return Err(ProxyError::Invalid);
    }
    Ok(Header {
        client,
        replay: buffer.split_off(len).freeze(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2_header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    async fn read(bytes: &[u8]) -> Result<Header, ProxyError> {
        let mut stream = bytes;
        read_header(&mut stream).await
    }

    #[tokio::test]
    async fn a_version_2_header_names_the_client_and_keeps_what_follows() {
        let mut bytes = v2_header(1, 0x11, &[10, 1, 2, 3, 127, 0, 0, 1, 0x30, 0x39, 0x07, 0x5b]);
        bytes.extend(b"\x10\x0c");
        let header = read(&bytes).await.unwrap();
        assert_eq!(header.client, Some("10.1.2.3:12345".parse().unwrap()));
        assert_eq!(&header.replay[..], b"\x10\x0c");
    }

    #[tokio::test]
    async fn a_version_1_header_names_the_client_and_keeps_what_follows() {
        let header = read(b"PROXY TCP4 10.1.2.3 127.0.0.1 12345 1883\r\n\x10")
            .await
            .unwrap();
        assert_eq!(header.client, Some("10.1.2.3:12345".parse().unwrap()));
        assert_eq!(&header.replay[..], b"\x10");
    }

    #[tokio::test]
    async fn the_proxys_own_connections_have_no_client() {
        assert_eq!(read(&v2_header(0, 0, &[])).await.unwrap().client, None);
        assert_eq!(read(b"PROXY UNKNOWN\r\n").await.unwrap().client, None);
    }

    #[tokio::test]
    async fn a_connection_without_a_header_is_refused() {
        assert!(matches!(
            read(b"GET / HTTP/1.1\r\n\r\n").await,
            Err(ProxyError::Invalid)
        ));
        assert!(matches!(
            read(b"\x10\x0c\0\x04MQTT").await,
            Err(ProxyError::Invalid)
        ));
    }

    #[tokio::test]
    async fn a_header_without_end_is_refused_at_its_bound() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 4096]].concat();
        assert!(read(&endless).await.is_err());
        let mut huge = V2_SIGNATURE.to_vec();
        huge.extend([0x21, 0x11, 0xff, 0xff]);
        huge.extend([0; 4096]);
        assert!(read(&huge).await.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_hang(tail in prop::collection::vec(any::<u8>(), 0..200), start in 0..3usize) {
            let mut bytes = [&b""[..], &V2_SIGNATURE[..], b"PROXY "][start].to_vec();
            bytes.extend(tail);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _outcome = runtime.block_on(read(&bytes));
        }
    }
}
