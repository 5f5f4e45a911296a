//! What the fuzz targets need of the codec; with the feature `fuzzing` alone.
// A broken promise ends the process here: that is what a fuzzer looks for.
#![allow(clippy::panic, clippy::expect_used)]

use bytes::{Bytes, BytesMut};

use crate::codec::{Frame, Packet, Protocol, Publish, decode, encode, frame};

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
