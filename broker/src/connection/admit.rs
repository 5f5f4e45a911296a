//! CONNECT to CONNACK: who the client is, what it may leave behind, and its session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use shopfloor_runtime::jwks::TokenError;
use shopfloor_runtime::tls::ClientCertificate;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::buffer::ReadBuffer;
use super::client::{Client, Peer};
use super::refusal::Refusal;
use super::takeover::{Opened, open_session};
use crate::auth::{AuthError, Credentials, Identity};
use crate::codec::encode::{self, ConnAck};
use crate::codec::{Connect, Protocol, Will, reason};
use crate::hub::Hub;
use crate::session::{Session, SessionState};
use crate::session_parts::PendingWill;
use crate::tap::Publisher;
use crate::topics;

/// Longer ones serve nobody.
const MAX_CLIENT_ID_BYTES: usize = 1024;

/// A client that was let in; its CONNACK is in `out`.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) client: Client,
    pub(crate) input: ReadBuffer,
    pub(crate) out: BytesMut,
    pub(crate) session: Arc<Session>,
    pub(crate) state: OwnedMutexGuard<SessionState>,
}

/// Lets the client in, or says why not.
pub(crate) async fn admit(
    hub: &Arc<Hub>,
    mut connect: Connect,
    peer: Peer,
    input: ReadBuffer,
    deadline: Instant,
) -> Result<Admitted, Refusal> {
    let protocol = connect.protocol;
    let refused = |(kind, reason, error): (_, _, &str)| refused(protocol, kind, reason, error);
    let identity = authenticate(hub, &mut connect, peer.certificate);
    let Identity { user, expires } = match tokio::time::timeout_at(deadline, identity).await {
        Ok(identity) => identity?,
        Err(_elapsed) => {
            let error = "the client could not be authenticated in time";
            return Err(refused(("authentication_timeout", reason::SERVER_BUSY, error)));
        }
    };
    let assigned = assign_client_id(&mut connect)
        .map_err(|error| refused(("client_id", reason::CLIENT_ID_INVALID, error)))?;
    let publisher = Arc::new(Publisher {
        client_id: connect.client_id.clone(),
        user,
        address: peer.address.ip(),
        v5: protocol == Protocol::V5,
    });
    let will = connect.will.take();
    let will = will.map(|will| take_will(hub, &publisher, will));
    let will = will.transpose().map_err(refused)?;
    let expiry_s = session_expiry_s(&connect, hub.config.session.max_expiry_s);
    // Its size does not depend on whether the session was there before.
    let (_, largest) = connack(hub, &connect, Arc::clone(&publisher), assigned, false, expiry_s);
    if largest.len() > connect.max_packet_bytes as usize {
        return Err(Refusal::NoRoomForConnAck);
    }
    let mut opened = open_session(hub, &connect).await?;
    opened.state.expiry_s = expiry_s;
    opened.state.will = will;
    if !is_durable(hub, &mut opened).await {
        let error = "the session cannot be made durable now";
        return Err(refused(("not_durable", reason::SERVER_UNAVAILABLE, error)));
    }
    let (mut client, out) = connack(hub, &connect, publisher, assigned, opened.present, expiry_s);
    client.expires = expires;
    Ok(Admitted {
        client,
        input,
        out,
        session: opened.session,
        state: opened.state,
    })
}

fn refused(protocol: Protocol, kind: &'static str, reason: u8, error: &str) -> Refusal {
    Refusal::Refused {
        protocol,
        kind,
        reason,
        error: error.to_owned(),
    }
}

async fn authenticate(
    hub: &Hub,
    connect: &mut Connect,
    certificate: Option<ClientCertificate>,
) -> Result<Identity, Refusal> {
    let protocol = connect.protocol;
    if connect.authentication_method.is_some() {
        let (kind, error) = ("authentication_method", "enhanced authentication is not offered");
        return Err(refused(protocol, kind, reason::BAD_AUTHENTICATION_METHOD, error));
    }
    let credentials = Credentials {
        certificate,
        user: connect.user.take(),
        password: connect.password.take(),
    };
    let identity = hub.auth.authenticate(credentials).await;
    identity.map_err(|error| refused(protocol, error.kind(), connack_reason(error), &error.to_string()))
}

/// Waits until a restart finds the session as it is now, where it must; false, and it is let go of, where that takes too
/// long.
async fn is_durable(hub: &Arc<Hub>, opened: &mut Opened) -> bool {
    let Opened {
        session,
        state,
        present,
        ended,
    } = opened;
    let begins = !*present && state.expiry_s > 0;
    if let Some(persistence) = hub.persistence.as_ref().filter(|_| begins) {
        state.durable = true;
        session
            .mailbox
            .keep(Arc::clone(persistence), session.key, VecDeque::new(), 0);
    }
    // The row of the new session is behind the end of the old one.
    let Some(wait) = hub.keep(session, state, None).or(ended.take()) else {
        return true;
    };
    let patience = Duration::from_millis(hub.config.connect_timeout_ms);
    if matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(()))) {
        return true;
    }
    state.will = None;
    if *present {
        hub.leave_behind(session, state);
    } else {
        let _nobody_waits = hub.end_session(session, state);
    }
    false
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
fn take_will(
    hub: &Hub,
    publisher: &Arc<Publisher>,
    will: Will,
) -> Result<Arc<PendingWill>, (&'static str, u8, &'static str)> {
    let (topic, limits) = (will.topic.as_str(), &hub.config);
    if !topics::within_limits(topic, limits.max_topic_bytes, limits.max_topic_levels) {
        let error = "the will's topic is over the limits";
        return Err(("will_topic_limits", reason::TOPIC_NAME_INVALID, error));
    }
    if !hub.acl.may_publish(&publisher.who(), topic) {
        let error = "the client may not publish to its will's topic";
        return Err(("will_not_authorized", reason::NOT_AUTHORIZED, error));
    }
    let mut will = PendingWill::new(will, Arc::clone(publisher));
    let mut share = hub.quota.share();
    if !share.grow(will.bytes()) {
        let error = "there is no room for the will: sessions hold all that they may";
        return Err(("session_store_full", reason::QUOTA_EXCEEDED, error));
    }
    will.share = Some(share);
    Ok(Arc::new(will))
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
