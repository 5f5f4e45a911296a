//! A client made of bytes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SOON;

pub struct Wire {
    pub socket: TcpStream,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        Self {
            socket: TcpStream::connect(address).await.unwrap(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next packet, whole; panics where the connection ends or nothing comes.
    pub async fn packet(&mut self) -> Vec<u8> {
        self.try_packet().await.expect("the server closed the connection")
    }

    /// The next packet, `None` where the connection ended.
    pub async fn try_packet(&mut self) -> Option<Vec<u8>> {
        tokio::time::timeout(SOON, self.read_packet())
            .await
            .expect("no packet came")
    }

    async fn read_packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![self.socket.read_u8().await.ok()?];
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.socket.read_u8().await.ok()?;
            packet.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        self.socket.read_exact(&mut packet[start..]).await.ok()?;
        Some(packet)
    }

    pub async fn expect(&mut self, packet: &[u8]) {
        let got = self.packet().await;
        assert_eq!(got, packet, "got {got:02x?}, expected {packet:02x?}");
    }

    /// Nothing more comes but the end of the connection.
    pub async fn expect_end(&mut self) {
        let packet = self.try_packet().await;
        assert_eq!(packet, None, "a packet came where the end was expected");
    }

    /// An answered PINGREQ: everything sent before it was handled, and nothing else came meanwhile.
    pub async fn ping(&mut self) {
        self.send([0xC0, 0]).await;
        self.expect(&[0xD0, 0]).await;
    }

    pub async fn connect_v311(&mut self, client_id: &str) {
        self.send(connect_v311(client_id, 0x02, 60)).await;
        self.expect(&[0x20, 2, 0, 0]).await;
    }

    pub async fn connect_v5(&mut self, client_id: &str) {
        self.send(connect_v5(client_id, 0x02, &[])).await;
        let connack = self.packet().await;
        assert_eq!(
            (connack[0], connack[2], connack[3]),
            (0x20, 0, 0),
            "CONNACK {connack:02x?}"
        );
    }

    pub async fn subscribe_v311(&mut self, filter: &str, qos: u8) {
        self.send(subscribe_v311(1, filter, qos)).await;
        self.expect(&[0x90, 3, 0, 1, qos]).await;
    }

    pub async fn subscribe_v5(&mut self, filter: &str, options: u8) {
        self.send(subscribe_v5(1, filter, options, &[])).await;
        self.expect(&[0x90, 4, 0, 1, 0, options & 3]).await;
    }
}

pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut packet = vec![first];
    packet.extend(variable(body.len()));
    packet.extend(body);
    packet
}

pub fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

pub fn properties(properties: &[u8]) -> Vec<u8> {
    [variable(properties.len()), properties.to_vec()].concat()
}

pub fn connect_v311(client_id: &str, flags: u8, keep_alive_s: u16) -> Vec<u8> {
    packet(
        0x10,
        &[
            b"\0\x04MQTT\x04",
            &[flags],
            &keep_alive_s.to_be_bytes(),
            &text(client_id),
        ],
    )
}

pub fn connect_v5(client_id: &str, flags: u8, props: &[u8]) -> Vec<u8> {
    packet(
        0x10,
        &[
            b"\0\x04MQTT\x05",
            &[flags],
            &[0, 60],
            &properties(props),
            &text(client_id),
        ],
    )
}

pub fn publish_v311(qos: u8, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    publish(0x30 | qos << 1, id, topic, None, payload)
}

pub fn publish_v5(qos: u8, id: u16, topic: &str, props: &[u8], payload: &[u8]) -> Vec<u8> {
    publish(0x30 | qos << 1, id, topic, Some(props), payload)
}

/// `first` carries DUP, QoS and RETAIN; no property list is 3.1.1.
pub fn publish(first: u8, id: u16, topic: &str, props: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
    let id = if first & 0x06 == 0 {
        Vec::new()
    } else {
        id.to_be_bytes().to_vec()
    };
    let props = props.map(properties).unwrap_or_default();
    packet(first, &[&text(topic), &id, &props, payload])
}

pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()])
}

pub fn puback(id: u16) -> Vec<u8> {
    ack(0x40, id)
}

pub fn pubrec(id: u16) -> Vec<u8> {
    ack(0x50, id)
}

pub fn pubrel(id: u16) -> Vec<u8> {
    ack(0x62, id)
}

pub fn pubcomp(id: u16) -> Vec<u8> {
    ack(0x70, id)
}

pub fn subscribe_v311(id: u16, filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&id.to_be_bytes(), &text(filter), &[qos]])
}

pub fn subscribe_v5(id: u16, filter: &str, options: u8, props: &[u8]) -> Vec<u8> {
    packet(
        0x82,
        &[&id.to_be_bytes(), &properties(props), &text(filter), &[options]],
    )
}

pub fn unsubscribe_v311(id: u16, filter: &str) -> Vec<u8> {
    packet(0xA2, &[&id.to_be_bytes(), &text(filter)])
}

pub fn unsubscribe_v5(id: u16, filter: &str) -> Vec<u8> {
    packet(0xA2, &[&id.to_be_bytes(), &[0], &text(filter)])
}
