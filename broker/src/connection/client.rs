//! Who is at the other end, and what it asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shopfloor_runtime::tls::ClientCertificate;
use tokio::time::Instant;

use crate::codec::Protocol;
use crate::tap::Publisher;

/// Who is at the other end, as far as the connection says.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Option<ClientCertificate>,
}

/// What the client asked for and may do.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) protocol: Protocol,
    /// Longest silence; `None` is no limit.
    pub(crate) silence: Option<Duration>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_bytes: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) problem_information: bool,
    /// When its token ends, and with it the connection.
    pub(crate) expires: Option<Instant>,
    /// Expiry in CONNECT was 0: DISCONNECT may not raise it.
    pub(crate) ends_with_connection: bool,
}
