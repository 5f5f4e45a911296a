//! From the first byte to CONNACK.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shopfloor_runtime::jwks::TokenError;
use shopfloor_runtime::tls::ClientCertificate;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::buffer::ReadBuffer;
use super::{LAST_WRITE, linger};
use crate::auth::{AuthError, Credentials, Identity};
use crate::codec::encode::{self, ConnAck};
use crate::codec::{Connect, DecodeError, Packet, Protocol, connect, decode, reason};
use crate::hub::Hub;
use crate::metrics;
use crate::persistence::Wait;
use crate::session::{PendingWill, Session, SessionState};
use crate::tap::Publisher;

/// A CONNECT is far below this, will and all; nobody is known yet who could send more.
const MAX_CONNECT_BYTES: usize = 256 * 1024;
const MAX_CLIENT_ID_BYTES: usize = 1024;

/// Who is at the other end, as far as the connection says.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Option<ClientCertificate>,
}

/// A client that was let in; its CONNACK is in `out`.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) client: Client,
    pub(crate) input: ReadBuffer,
    pub(crate) out: BytesMut,
    pub(crate) session: Arc<Session>,
    pub(crate) state: OwnedMutexGuard<SessionState>,
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

/// A client that was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the connection ended before CONNECT was complete")]
    Gone,
    #[error("CONNECT was not complete in time")]
    Timeout,
    #[error("the first packet is no CONNECT")]
    NoConnect,
    #[error("CONNECT has {error}")]
    Decode {
        protocol: Option<Protocol>,
        error: DecodeError,
    },
    #[error("{error}")]
    Refused {
        protocol: Protocol,
        kind: &'static str,
        reason: u8,
        error: String,
    },
    #[error("the client takes no packet as large as its CONNACK")]
    NoRoomForConnAck,
    #[error("the front stops")]
    ShutDown,
}

impl Refusal {
    fn kind(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Timeout => "timeout",
            Self::NoConnect => "no_connect",
            Self::Decode { error, .. } => error.kind(),
            Self::Refused { kind, .. } => kind,
            Self::NoRoomForConnAck => "no_room_for_connack",
            Self::ShutDown => "shut_down",
        }
    }

    /// The CONNACK that says it; nothing where the peer speaks no MQTT.
    fn connack(&self, out: &mut BytesMut) {
        let (protocol, reason, text) = match self {
            // The version is unknown: 3.1.1's is the shape that every client reads.
            Self::Decode {
                protocol: None,
                error,
            } if error.reason == reason::UNSUPPORTED_PROTOCOL => (Protocol::V311, error.reason, ""),
            Self::Decode {
                protocol: Some(Protocol::V5),
                error,
            } => (Protocol::V5, error.reason, error.rule),
            Self::Refused {
                protocol,
                reason,
                error,
                ..
            } => (*protocol, *reason, error.as_str()),
            _ => return,
        };
        let connack = ConnAck {
            reason,
            reason_string: Some(text),
            ..ConnAck::default()
        };
        encode::connack(out, protocol, &connack);
    }
}

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
    let admitted = match connect {
        Ok(connect) => admit(hub, connect, peer, input, deadline).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(admitted) => Some(admitted),
        Err(refusal) => {
            tracing::debug!(peer = %address, reason = refusal.kind(), "client refused: {refusal}");
            metrics::refused(refusal.kind());
            let mut out = BytesMut::new();
            refusal.connack(&mut out);
            if !out.is_empty() {
                let _gone = tokio::time::timeout(LAST_WRITE, stream.write_all_buf(&mut out)).await;
                let _gone = tokio::time::timeout(LAST_WRITE, stream.shutdown()).await;
                linger(stream).await;
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

async fn admit(
    hub: &Arc<Hub>,
    mut connect: Connect,
    peer: Peer,
    input: ReadBuffer,
    deadline: Instant,
) -> Result<Admitted, Refusal> {
    let protocol = connect.protocol;
    let refused = |kind, reason, error: String| Refusal::Refused {
        protocol,
        kind,
        reason,
        error,
    };
    if connect.authentication_method.is_some() {
        let error = "enhanced authentication is not offered".to_owned();
        return Err(refused(
            "authentication_method",
            reason::BAD_AUTHENTICATION_METHOD,
            error,
        ));
    }
    let credentials = Credentials {
        certificate: peer.certificate,
        user: connect.user.take(),
        password: connect.password.take(),
    };
    let identity = tokio::time::timeout_at(deadline, hub.auth.authenticate(credentials));
    let Identity { user, expires } = match identity.await {
        Ok(Ok(identity)) => identity,
        Ok(Err(error)) => return Err(refused(error.kind(), connack_reason(error), error.to_string())),
        Err(_elapsed) => {
            let error = "the client could not be authenticated in time".to_owned();
            return Err(refused("authentication_timeout", reason::SERVER_BUSY, error));
        }
    };
    let assigned = assign_client_id(&mut connect)
        .map_err(|error| refused("client_id", reason::CLIENT_ID_INVALID, error.to_owned()))?;
    let publisher = Arc::new(Publisher {
        client_id: connect.client_id.clone(),
        user,
        address: peer.address.ip(),
        v5: protocol == Protocol::V5,
    });
    if let Some(will) = &connect.will {
        check_will(hub, &publisher, will.topic.as_str())
            .map_err(|(kind, reason, error)| refused(kind, reason, error.to_owned()))?;
    }
    let expiry_s = session_expiry_s(&connect, hub.config.session.max_expiry_s);
    // Its size does not depend on whether the session was there before.
    let (_, largest) = connack(hub, &connect, Arc::clone(&publisher), assigned, false, expiry_s);
    if largest.len() > connect.max_packet_bytes as usize {
        return Err(Refusal::NoRoomForConnAck);
    }
    let Opened {
        session,
        mut state,
        present,
        ended,
    } = open_session(hub, &connect).await?;
    state.expiry_s = expiry_s;
    state.will = connect
        .will
        .take()
        .map(|will| PendingWill::new(will, Arc::clone(&publisher)));
    if let Some(persistence) = hub.persistence.as_ref().filter(|_| !present && expiry_s > 0) {
        state.durable = true;
        session
            .mailbox
            .keep(Arc::clone(persistence), session.key, VecDeque::new(), 0);
    }
    // The row of the new session is behind the end of the old one.
    if let Some(wait) = hub.keep(&session, &state, None).or(ended) {
        let patience = Duration::from_millis(hub.config.connect_timeout_ms);
        if !matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(()))) {
            state.will = None;
            if present {
                hub.leave_behind(&session, &mut state);
            } else {
                let _nobody_waits = hub.end_session(&session, &mut state);
            }
            let error = "the session cannot be made durable now".to_owned();
            return Err(refused("not_durable", reason::SERVER_UNAVAILABLE, error));
        }
    }
    let (mut client, out) = connack(hub, &connect, publisher, assigned, present, expiry_s);
    client.expires = expires;
    Ok(Admitted {
        client,
        input,
        out,
        session,
        state,
    })
}

fn connack_reason(error: AuthError) -> u8 {
    match error {
        AuthError::Anonymous | AuthError::NamelessCertificate => reason::NOT_AUTHORIZED,
        AuthError::BadCredentials => reason::BAD_USER_OR_PASSWORD,
        AuthError::Token(TokenError::NoKeys) | AuthError::Busy => reason::SERVER_BUSY,
        AuthError::Token(_) => reason::BAD_USER_OR_PASSWORD,
    }
}

/// A will is a publish that its client cannot be told of later.
fn check_will(hub: &Hub, publisher: &Publisher, topic: &str) -> Result<(), (&'static str, u8, &'static str)> {
    let limits = &hub.config;
    if !crate::topics::within_limits(topic, limits.max_topic_bytes, limits.max_topic_levels) {
        let error = "the will's topic is over the limits";
        return Err(("will_topic_limits", reason::TOPIC_NAME_INVALID, error));
    }
    if !hub.acl.may_publish(&publisher.who(), topic) {
        let error = "the client may not publish to its will's topic";
        return Err(("will_not_authorized", reason::NOT_AUTHORIZED, error));
    }
    Ok(())
}

/// True where the client gave none and got one.
fn assign_client_id(connect: &mut Connect) -> Result<bool, &'static str> {
    if connect.client_id.len() > MAX_CLIENT_ID_BYTES {
        return Err("the client id is longer than 1024 bytes");
    }
    if !connect.client_id.is_empty() {
        return Ok(false);
    }
    if connect.protocol == Protocol::V311 && !connect.clean_start {
        return Err("a session that is kept needs a client id");
    }
    connect.client_id = format!("auto-{}", uuid::Uuid::new_v4().as_simple());
    Ok(true)
}

fn session_expiry_s(connect: &Connect, max_s: u32) -> u32 {
    match (connect.protocol, connect.clean_start) {
        (Protocol::V5, _) => connect.session_expiry_s.unwrap_or(0).min(max_s),
        (Protocol::V311, true) => 0,
        (Protocol::V311, false) => max_s,
    }
}

struct Opened {
    session: Arc<Session>,
    state: OwnedMutexGuard<SessionState>,
    /// It was there before.
    present: bool,
    /// Resolves when a restart does not find the session that this one replaces.
    ended: Option<Wait>,
}

/// Takes the session over from whoever has it.
async fn open_session(hub: &Arc<Hub>, connect: &Connect) -> Result<Opened, Refusal> {
    let v5 = connect.protocol == Protocol::V5;
    let refused = |kind, reason, error| Refusal::Refused {
        protocol: connect.protocol,
        kind,
        reason,
        error,
    };
    let taken_over = || {
        let error = "another connection came with the same client id".to_owned();
        refused("taken_over", reason::SESSION_TAKEN_OVER, error)
    };
    let mut ended = None;
    loop {
        let claim = hub
            .registry
            .claim(&connect.client_id)
            .map_err(|error| refused("too_many_sessions", reason::SERVER_BUSY, error.to_string()))?;
        let mut state = claim.wait().await;
        if state.ended {
            continue;
        }
        if connect.clean_start && state.used {
            if !claim.is_latest() {
                return Err(taken_over());
            }
            ended = hub.end_session(&claim.session, &mut state);
            continue;
        }
        if !claim.attach(v5) {
            // Never used, and the later connection finds it.
            return Err(taken_over());
        }
        if let Some(afterlife) = state.afterlife.take() {
            afterlife.abort();
        }
        hub.metrics.sessions.set(hub.registry.len() as f64);
        let present = std::mem::replace(&mut state.used, true);
        return Ok(Opened {
            session: Arc::clone(&claim.session),
            state,
            present,
            ended,
        });
    }
}

fn connack(
    hub: &Hub,
    connect: &Connect,
    publisher: Arc<Publisher>,
    assigned: bool,
    present: bool,
    expiry_s: u32,
) -> (Client, BytesMut) {
    let config = &hub.config;
    let v5 = connect.protocol == Protocol::V5;
    let longest_s = config.max_keep_alive_s;
    // Who asks for none gets none.
    let shorten = v5 && longest_s > 0 && connect.keep_alive_s > longest_s;
    let keep_alive_s = if shorten { longest_s } else { connect.keep_alive_s };
    let packet_bytes = u32::try_from(config.max_packet_bytes).unwrap_or(u32::MAX);
    let connack = ConnAck {
        session_present: present,
        assigned_client_id: assigned.then_some(connect.client_id.as_str()),
        session_expiry_s: (expiry_s != connect.session_expiry_s.unwrap_or(0)).then_some(expiry_s),
        server_keep_alive_s: shorten.then_some(longest_s),
        receive_maximum: Some(config.receive_maximum),
        max_packet_bytes: Some(packet_bytes),
        topic_alias_maximum: (config.topic_alias_maximum > 0).then_some(config.topic_alias_maximum),
        ..ConnAck::default()
    };
    let mut out = BytesMut::with_capacity(64);
    encode::connack(&mut out, connect.protocol, &connack);
    let client = Client {
        publisher,
        protocol: connect.protocol,
        silence: (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500)),
        receive_maximum: connect.receive_maximum,
        max_packet_bytes: connect.max_packet_bytes,
        topic_alias_maximum: connect.topic_alias_maximum.min(config.topic_alias_maximum),
        problem_information: connect.request_problem_information,
        expires: None,
        ends_with_connection: connect.session_expiry_s.unwrap_or(0) == 0,
    };
    (client, out)
}
