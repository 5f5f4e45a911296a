//! What the fuzz targets need of the codec, of the session store and of operators' files; with the feature `fuzzing`
//! alone.
// A broken promise ends the process here: that is what a fuzzer looks for.
#![allow(clippy::panic, clippy::expect_used)]

use bytes::{Bytes, BytesMut};

use crate::codec::{Frame, Packet, Protocol, Publish, decode, encode, frame};
use crate::password_file;
use crate::persistence;
use crate::topic_pattern::{Pattern, Who};
use crate::topics;

const MAX_PACKET_BYTES: usize = 1024 * 1024;

/// Decodes every packet at the start of `bytes`. A PUBLISH that is accepted and sent on is read as the same again.
pub fn decode_and_encode(bytes: &[u8], v5: bool) {
    let protocol = if v5 { Protocol::V5 } else { Protocol::V311 };
    let bytes = Bytes::copy_from_slice(bytes);
    let mut at = 0;
    while let Ok(Frame::Complete { header, total }) =
        frame(bytes.get(at..).unwrap_or_default(), MAX_PACKET_BYTES)
    {
        if let Ok(Packet::Publish(publish)) = decode(&bytes, at..at + total, header, protocol) {
            comes_back(&publish, protocol);
        }
        at += total;
    }
}

fn comes_back(publish: &Publish, protocol: Protocol) {
    let mut out = BytesMut::new();
    let sent = encode::Publish {
        topic: publish.topic.as_str(),
        payload: &publish.payload,
        qos: publish.qos,
        retain: publish.retain,
        dup: false,
        packet_id: publish.packet_id,
        topic_alias: publish.topic_alias,
        subscription_ids: &[],
        properties: publish.properties.as_deref(),
        message_expiry_s: publish
            .properties
            .as_ref()
            .and_then(|properties| properties.message_expiry_s),
    };
    assert!(
        encode::publish(&mut out, protocol, &sent, u32::MAX),
        "what was read can be written"
    );
    let out = out.freeze();
    let Ok(Frame::Complete { header, total }) = frame(&out, usize::MAX) else {
        panic!("what was written is no whole packet");
    };
    assert_eq!(total, out.len());
    let Ok(Packet::Publish(again)) = decode(&out, 0..total, header, protocol) else {
        panic!("what was written is refused");
    };
    assert_eq!(
        (
            &publish.topic,
            &publish.payload,
            publish.qos,
            publish.retain,
            publish.packet_id
        ),
        (
            &again.topic,
            &again.payload,
            again.qos,
            again.retain,
            again.packet_id
        )
    );
    assert_eq!(publish.topic_alias, again.topic_alias);
    let said = |publish: &Publish| publish.properties.clone().unwrap_or_default();
    assert_eq!(said(publish), said(&again));
}

/// Reads a value of the session store's tables. What is accepted comes back as it was written.
pub fn session_record(kind: u8, bytes: &[u8]) {
    persistence::fuzzing::record_comes_back(kind, bytes);
}

/// Reads a password file: it is taken whole, or its wrong lines are named.
pub fn password_file(text: &str) {
    if let Err(wrong) = password_file::parse(text) {
        let lines = 1..=text.lines().count();
        assert!(!wrong.is_empty() && wrong.iter().all(|(number, _)| lines.contains(number)));
    }
}

/// A topic of an access rule selects, for the client of that name, what the filter does that has the name in its place.
pub fn access_pattern(pattern: &str, name: &str, topic: &str) {
    let who = Who {
        user: Some(name),
        client_id: name,
    };
    let Ok(parsed) = Pattern::parse(pattern) else {
        return;
    };
    let selects = (parsed.covers(&who, topic), parsed.overlaps(&who, topic));
    if topic.is_empty() || topic.contains(['+', '#']) || !parsed.is_safe_for(&who) {
        return;
    }
    let filled = pattern.split('/').map(|level| match level {
        "%c" | "%u" => name,
        level => level,
    });
    let expected = topics::matches(&filled.collect::<Vec<_>>().join("/"), topic);
    assert_eq!(selects, (expected, expected), "{pattern:?}, {name:?}, {topic:?}");
}
