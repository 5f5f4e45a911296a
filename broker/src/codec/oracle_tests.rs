//! The codec against `mqtt-protocol-core`, and against bytes that nobody would send.

use bytes::{Bytes, BytesMut};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::encode::{self, AckKind, ConnAck};
use super::{DecodeError, Frame, Packet, Protocol, decode, frame};
use crate::tap::Properties;

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let low = (length & 0x7F) as u8;
        length >>= 7;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return [packet, body.to_vec()].concat();
        }
    }
}

fn topic() -> impl Strategy<Value = String> {
    select(
        &[
            "t",
            "a/b",
            "",
            "/",
            "+",
            "a/#",
            "$SYS/x",
            "über/maß",
            "$share/g/t",
            "a\u{0}b",
        ][..],
    )
    .prop_map(str::to_owned)
}

/// One property of any kind, now and then in the wrong place.
fn property() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<bool>().prop_map(|flag| vec![1, u8::from(flag)]),
        any::<u32>().prop_map(|value| [&[2][..], &value.to_be_bytes()].concat()),
        topic().prop_map(|text| [vec![3], sized(text.as_bytes())].concat()),
        topic().prop_map(|text| [vec![8], sized(text.as_bytes())].concat()),
        vec(any::<u8>(), 0..4).prop_map(|data| [vec![9], sized(&data)].concat()),
        (0..4_u8).prop_map(|id| vec![11, id]),
        any::<u32>().prop_map(|value| [&[17][..], &value.to_be_bytes()].concat()),
        (0..3_u16).prop_map(|value| [&[33][..], &value.to_be_bytes()].concat()),
        (0..3_u16).prop_map(|value| [&[35][..], &value.to_be_bytes()].concat()),
        (topic(), topic()).prop_map(|(name, value)| [
            vec![38],
            sized(name.as_bytes()),
            sized(value.as_bytes())
        ]
        .concat()),
        (0..3_u32).prop_map(|value| [&[39][..], &value.to_be_bytes()].concat()),
        (0..64_u8).prop_map(|id| vec![id, 0]),
    ]
}

fn list(protocol: Protocol) -> impl Strategy<Value = Vec<u8>> {
    vec(property(), 0..4).prop_map(move |properties| match protocol {
        Protocol::V311 => Vec::new(),
        Protocol::V5 => {
            let properties = properties.concat();
            [vec![u8::try_from(properties.len()).unwrap()], properties].concat()
        }
    })
}

/// Packets that are right more often than not.
fn client_packet(protocol: Protocol) -> impl Strategy<Value = Vec<u8>> {
    let level = if protocol == Protocol::V5 { 5 } else { 4 };
    prop_oneof![
        (
            0x30..0x40_u8,
            topic(),
            0..3_u16,
            list(protocol),
            vec(any::<u8>(), 0..9)
        )
            .prop_map(|(first, topic, id, list, payload)| {
                let id = if first & 6 == 0 {
                    Vec::new()
                } else {
                    id.to_be_bytes().to_vec()
                };
                packet(first, &[sized(topic.as_bytes()), id, list, payload].concat())
            }),
        (
            select(&[0x40, 0x50, 0x62, 0x70][..]),
            0..3_u16,
            vec(select(&[0, 0x10, 0x92, 0x80, 0x99][..]), 0..2),
            list(protocol)
        )
            .prop_map(move |(first, id, reason, list)| {
                let list = if reason.is_empty() { Vec::new() } else { list };
                let reason = if protocol == Protocol::V5 {
                    reason
                } else {
                    Vec::new()
                };
                packet(first, &[id.to_be_bytes().to_vec(), reason, list].concat())
            }),
        (1..3_u16, list(protocol), vec((topic(), 0..0x40_u8), 0..3)).prop_map(|(id, list, filters)| {
            let filters = filters
                .iter()
                .flat_map(|(f, options)| [sized(f.as_bytes()), vec![*options]].concat());
            packet(
                0x82,
                &[id.to_be_bytes().to_vec(), list, filters.collect()].concat(),
            )
        }),
        (1..3_u16, list(protocol), vec(topic(), 0..3)).prop_map(|(id, list, filters)| {
            let filters = filters.iter().flat_map(|filter| sized(filter.as_bytes()));
            packet(
                0xA2,
                &[id.to_be_bytes().to_vec(), list, filters.collect()].concat(),
            )
        }),
        (
            any::<u8>(),
            any::<u16>(),
            list(protocol),
            list(protocol),
            vec(topic(), 5)
        )
            .prop_map(move |(flags, keep_alive, connect, will, texts)| {
                let mut body = [
                    b"\0\x04MQTT".as_slice(),
                    &[level, flags],
                    &keep_alive.to_be_bytes(),
                ]
                .concat();
                body.extend(connect);
                body.extend(sized(texts[0].as_bytes()));
                if flags & 0x04 != 0 {
                    body.extend(will);
                    body.extend(sized(texts[1].as_bytes()));
                    body.extend(sized(texts[2].as_bytes()));
                }
                for (flag, text) in [(0x80, &texts[3]), (0x40, &texts[4])] {
                    if flags & flag != 0 {
                        body.extend(sized(text.as_bytes()));
                    }
                }
                packet(0x10, &body)
            }),
        (select(&[0, 4, 0x81, 0x99, 0x8B][..]), list(protocol))
            .prop_map(|(reason, list)| packet(0xE0, &[vec![reason], list].concat())),
        Just(vec![0xC0, 0]),
        Just(vec![0xE0, 0]),
    ]
}

fn decode_one(bytes: &[u8], protocol: Protocol) -> Option<Result<Packet, DecodeError>> {
    match frame(bytes, 10_000) {
        Ok(Frame::Complete { header, total }) => {
            Some(decode(&Bytes::copy_from_slice(bytes), 0..total, header, protocol))
        }
        Ok(Frame::Partial { .. }) => None,
        Err(error) => Some(Err(error)),
    }
}

/// What we accept, the oracle accepts too, with the same content.
fn agrees(bytes: &[u8], packet: &Packet, protocol: Protocol) {
    let Ok(Frame::Complete { header, total }) = frame(bytes, 10_000) else {
        panic!("decoded an incomplete frame")
    };
    let body = &bytes[header..total];
    let whole = |consumed: usize| assert_eq!(consumed, body.len(), "the oracle left bytes");
    match (packet, protocol) {
        (Packet::Publish(ours), Protocol::V5) => {
            let (theirs, consumed) =
                v5_0::Publish::parse(bytes[0] & 0x0F, body.into()).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.topic.as_str(), theirs.topic_name());
            assert_eq!(&ours.payload[..], theirs.payload().as_slice());
            assert_eq!((ours.qos, ours.retain), (theirs.qos() as u8, theirs.retain()));
            assert_eq!(ours.packet_id, theirs.packet_id().unwrap_or(0));
        }
        (Packet::Publish(ours), Protocol::V311) => {
            let (theirs, consumed) =
                v3_1_1::Publish::parse(bytes[0] & 0x0F, body.into()).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.topic.as_str(), theirs.topic_name());
            assert_eq!(&ours.payload[..], theirs.payload().as_slice());
            assert_eq!((ours.qos, ours.retain), (theirs.qos() as u8, theirs.retain()));
            assert_eq!(ours.packet_id, theirs.packet_id().unwrap_or(0));
        }
        (Packet::PubAck(ours), Protocol::V5) => {
            let (theirs, consumed) = v5_0::Puback::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.packet_id, theirs.packet_id());
            assert_eq!(ours.reason, theirs.reason_code().map_or(0, |reason| reason as u8));
        }
        (Packet::PubRel(ours), Protocol::V5) => {
            let (theirs, consumed) = v5_0::Pubrel::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.packet_id, theirs.packet_id());
        }
        // The oracle looks at shares while it decodes, the front when it subscribes.
        (Packet::Subscribe(ours), Protocol::V5)
            if ours
                .filters
                .iter()
                .all(|(filter, _)| crate::topics::split_share(filter).is_some()) =>
        {
            let (theirs, consumed) = v5_0::Subscribe::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.packet_id, theirs.packet_id());
            let filters = theirs
                .entries()
                .iter()
                .map(|entry| (entry.topic_filter(), entry.sub_opts().qos() as u8));
            assert!(
                ours.filters
                    .iter()
                    .map(|(filter, options)| (filter.as_str(), options.qos))
                    .eq(filters)
            );
        }
        (Packet::Subscribe(ours), Protocol::V311) => {
            let (theirs, consumed) = v3_1_1::Subscribe::parse(body).expect("the oracle refuses");
            whole(consumed);
            let filters = theirs
                .entries()
                .iter()
                .map(|entry| (entry.topic_filter(), entry.sub_opts().qos() as u8));
            assert!(
                ours.filters
                    .iter()
                    .map(|(filter, options)| (filter.as_str(), options.qos))
                    .eq(filters)
            );
        }
        (Packet::Connect(ours), Protocol::V5) if ours.password.is_none() || ours.user.is_some() => {
            let (theirs, consumed) = v5_0::Connect::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.client_id, theirs.client_id());
            assert_eq!(
                (ours.clean_start, ours.keep_alive_s),
                (theirs.clean_start(), theirs.keep_alive())
            );
            assert_eq!(ours.user.as_deref(), theirs.user_name());
            assert_eq!(ours.password.as_deref(), theirs.password());
            assert_eq!(
                ours.will.as_ref().map(|will| will.topic.as_str()),
                theirs.will_topic()
            );
            assert_eq!(
                ours.will.as_ref().map(|will| &will.payload[..]),
                theirs.will_payload()
            );
        }
        (Packet::Connect(ours), Protocol::V311) => {
            let (theirs, consumed) = v3_1_1::Connect::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.client_id, theirs.client_id());
            assert_eq!(ours.user.as_deref(), theirs.user_name());
            assert_eq!(
                ours.will.as_ref().map(|will| will.topic.as_str()),
                theirs.will_topic()
            );
        }
        // The oracle looks into a share's name here; the front does when it has the filter.
        (Packet::Unsubscribe(ours), Protocol::V5)
            if !ours.filters.iter().any(|filter| filter.starts_with("$share")) =>
        {
            let (theirs, consumed) = v5_0::Unsubscribe::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.filters.len(), theirs.entries().len());
        }
        (Packet::Disconnect(ours), Protocol::V5) => {
            let (theirs, consumed) = v5_0::Disconnect::parse(body).expect("the oracle refuses");
            whole(consumed);
            assert_eq!(ours.reason, theirs.reason_code().map_or(0, |reason| reason as u8));
        }
        _ => {}
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::V311, Protocol::V5][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..200), protocol in protocol()) {
        let _any = decode_one(&bytes, protocol);
    }

    #[test]
    fn what_is_accepted_is_what_the_oracle_reads(
        (protocol, bytes) in protocol().prop_flat_map(|protocol| (Just(protocol), client_packet(protocol))),
    ) {
        if let Some(Ok(packet)) = decode_one(&bytes, protocol) {
            agrees(&bytes, &packet, protocol);
        }
    }

    #[test]
    fn a_damaged_packet_is_refused_or_is_what_the_oracle_reads(
        (protocol, mut bytes) in protocol().prop_flat_map(|protocol| (Just(protocol), client_packet(protocol))),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(Ok(packet)) = decode_one(&bytes, protocol) {
            agrees(&bytes, &packet, protocol);
        }
    }

    #[test]
    fn a_packet_cut_inside_is_refused_and_never_waited_for(
        (protocol, bytes) in protocol().prop_flat_map(|protocol| (Just(protocol), client_packet(protocol))),
        cut in any::<Index>(),
    ) {
        // The frame says that it is complete, whatever is missing.
        let Ok(Frame::Complete { header, total }) = frame(&bytes, 10_000) else { return Ok(()) };
        let short = packet(bytes[0], &bytes[header..header + cut.index(total - header + 1)]);
        prop_assert!(decode_one(&short, protocol).is_some());
    }

    #[test]
    fn the_oracle_reads_every_publish_that_is_sent(
        qos in 0..3_u8, retain: bool, dup: bool, alias in proptest::option::of(1..9_u16),
        ids in vec(1..200_000_u32, 0..3), payload in vec(any::<u8>(), 0..300), expiry in proptest::option::of(any::<u32>()),
        user in vec(("[a-zä]{0,9}", "[a-zä]{0,200}"), 0..3), content_type in proptest::option::of("[a-z/]{0,20}"),
    ) {
        let properties = Properties { content_type, user, correlation_data: Some(Bytes::from_static(b"\0\xFF")), ..Properties::default() };
        for protocol in [Protocol::V311, Protocol::V5] {
            let sent = encode::Publish {
                topic: "über/t", payload: &payload, qos, retain, dup: dup && qos > 0, packet_id: 7, topic_alias: alias,
                subscription_ids: &ids, properties: Some(&properties), message_expiry_s: expiry,
            };
            let mut out = BytesMut::new();
            prop_assert!(encode::publish(&mut out, protocol, &sent, u32::MAX));
            let Ok(Frame::Complete { header, total }) = frame(&out, 1_000_000) else { panic!("incomplete") };
            prop_assert_eq!(total, out.len());
            let (flags, body) = (out[0] & 0x0F, &out[header..]);
            if protocol == Protocol::V5 {
                let (theirs, consumed) = v5_0::Publish::parse(flags, body.into()).expect("the oracle refuses");
                prop_assert_eq!(consumed, body.len());
                prop_assert_eq!(theirs.payload().as_slice(), &payload[..]);
                prop_assert_eq!(theirs.qos() as u8, qos);
                prop_assert_eq!(theirs.to_continuous_buffer(), out.to_vec());
            } else {
                let (theirs, consumed) = v3_1_1::Publish::parse(flags, body.into()).expect("the oracle refuses");
                prop_assert_eq!(consumed, body.len());
                prop_assert_eq!(theirs.to_continuous_buffer(), out.to_vec());
            }
            let mut none = BytesMut::new();
            let too_small = u32::try_from(out.len()).unwrap() - 1;
            prop_assert!(!encode::publish(&mut none, protocol, &sent, too_small) && none.is_empty());
        }
    }
}

#[test]
fn the_oracle_reads_every_other_packet_that_is_sent() {
    let mut out = BytesMut::new();
    let connack = ConnAck {
        session_present: true,
        reason_string: Some("reason"),
        assigned_client_id: Some("auto-1"),
        session_expiry_s: Some(1),
        server_keep_alive_s: Some(2),
        receive_maximum: Some(3),
        max_packet_bytes: Some(4),
        topic_alias_maximum: Some(5),
        ..ConnAck::default()
    };
    encode::connack(&mut out, Protocol::V5, &connack);
    let (theirs, consumed) = v5_0::Connack::parse(&out[2..]).unwrap();
    assert!(theirs.session_present() && consumed == out.len() - 2 && theirs.props().len() == 7);
    out.clear();
    for (kind, reason) in [
        (AckKind::Ack, 0x99),
        (AckKind::Received, 0x99),
        (AckKind::Release, 0x92),
        (AckKind::Complete, 0x92),
    ] {
        for text in [None, Some("why")] {
            encode::ack(&mut out, Protocol::V5, kind, 7, reason, text, 100);
            let body = &out[2..];
            let (id, consumed) = match kind {
                AckKind::Ack => v5_0::Puback::parse(body).map(|(ack, consumed)| (ack.packet_id(), consumed)),
                AckKind::Received => {
                    v5_0::Pubrec::parse(body).map(|(ack, consumed)| (ack.packet_id(), consumed))
                }
                AckKind::Release => {
                    v5_0::Pubrel::parse(body).map(|(ack, consumed)| (ack.packet_id(), consumed))
                }
                AckKind::Complete => {
                    v5_0::Pubcomp::parse(body).map(|(ack, consumed)| (ack.packet_id(), consumed))
                }
            }
            .unwrap();
            assert_eq!((id, consumed), (7, body.len()));
            out.clear();
        }
    }
    encode::suback(&mut out, Protocol::V5, 7, &[0, 1, 2, 0x8F]);
    assert_eq!(v5_0::Suback::parse(&out[2..]).unwrap().1, out.len() - 2);
    out.clear();
    encode::unsuback(&mut out, Protocol::V5, 7, &[0, 0x11]);
    assert_eq!(v5_0::Unsuback::parse(&out[2..]).unwrap().1, out.len() - 2);
    out.clear();
    encode::disconnect(&mut out, 0x8E, Some("why"), 100);
    assert_eq!(v5_0::Disconnect::parse(&out[2..]).unwrap().1, out.len() - 2);
}

#[test]
fn what_the_standard_forbids_is_refused_with_its_code() {
    let v311 = |bytes: &[u8]| decode_one(bytes, Protocol::V311).expect("complete").map(drop);
    let v5 = |bytes: &[u8]| decode_one(bytes, Protocol::V5).expect("complete").map(drop);
    let cases: &[(&str, Result<(), DecodeError>, u8)] = &[
        ("QoS 3", v311(b"\x36\x05\0\x01t\0\x01"), 0x81),
        ("DUP with QoS 0", v311(b"\x38\x03\0\x01t"), 0x81),
        ("packet id 0", v311(b"\x32\x05\0\x01t\0\0"), 0x82),
        ("wildcard in topic", v5(b"\x30\x06\0\x03a/#\0"), 0x81),
        ("control character in topic", v311(b"\x30\x04\0\x02a\n"), 0x81),
        ("U+009F in topic", v311(b"\x30\x05\0\x03a\xC2\x9F"), 0x81),
        (
            "padded subscription identifier",
            v5(b"\x82\x0A\0\x01\x03\x0B\x81\0\0\x01t\0"),
            0x81,
        ),
        ("unknown reason code", v5(b"\x40\x03\0\x01\x7F"), 0x82),
        ("SUBACK flags", v5(b"\x91\x04\0\x01\0\0"), 0x81),
        ("NUL in topic", v311(b"\x30\x04\0\x02a\0"), 0x81),
        ("topic not UTF-8", v311(b"\x30\x03\0\x01\xFF"), 0x81),
        ("surrogate in topic", v311(b"\x30\x05\0\x03\xED\xA0\x80"), 0x81),
        ("empty topic", v5(b"\x30\x03\0\0\0"), 0x82),
        ("alias 0", v5(b"\x30\x07\0\x01t\x03\x23\0\0"), 0x94),
        ("property twice", v5(b"\x30\x08\0\x01t\x04\x01\0\x01\0"), 0x82),
        ("foreign property", v5(b"\x30\x09\0\x01t\x05\x11\0\0\0\x01"), 0x81),
        (
            "subscription identifier of a client",
            v5(b"\x30\x06\0\x01t\x02\x0B\x01"),
            0x82,
        ),
        ("property list too long", v5(b"\x30\x04\0\x01t\x09"), 0x81),
        ("topic longer than packet", v311(b"\x30\x03\0\x09t"), 0x81),
        ("SUBSCRIBE flags", v311(b"\x80\x06\0\x01\0\x01t\0"), 0x81),
        ("SUBSCRIBE of nothing", v311(b"\x82\x02\0\x01"), 0x82),
        (
            "SUBSCRIBE reserved bits",
            v311(b"\x82\x06\0\x01\0\x01t\x04"),
            0x81,
        ),
        ("SUBSCRIBE QoS 3", v5(b"\x82\x07\0\x01\0\0\x01t\x03"), 0x81),
        ("PUBREL flags", v311(b"\x60\x02\0\x01"), 0x81),
        ("PINGREQ body", v311(b"\xC0\x01\0"), 0x81),
        ("CONNACK from a client", v5(b"\x20\x03\0\0\0"), 0x82),
        (
            "reserved CONNECT flag",
            v311(b"\x10\x0D\0\x04MQTT\x04\x03\0\0\0\x01c"),
            0x81,
        ),
        (
            "will QoS without will",
            v311(b"\x10\x0D\0\x04MQTT\x04\x0A\0\0\0\x01c"),
            0x81,
        ),
        (
            "bytes after CONNECT",
            v311(b"\x10\x0E\0\x04MQTT\x04\x02\0\0\0\x01cx"),
            0x81,
        ),
        ("length of five bytes", v311(b"\x30\xFF\xFF\xFF\xFF\x01"), 0x81),
        ("type 0", v311(b"\x00\x00"), 0x82),
        ("AUTH in 3.1.1", v311(b"\xF0\x00"), 0x81),
    ];
    for (what, result, reason) in cases {
        assert_eq!(result.map_err(|error| error.reason), Err(*reason), "{what}");
    }
    assert_eq!(
        v5(b"\x10\x12\0\x04MQTT\x05\x42\0\0\0\0\x01c\0\x02pw"),
        Ok(()),
        "MQTT 5 allows a password alone"
    );
}
