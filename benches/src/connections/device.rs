//! One connection of a device, as bytes: MQTT 3.1.1 over TCP or TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Devices from one address: half of what the gateway's default grants one, as those that were cut may still count.
const PER_ADDRESS: usize = 4_500;
const KEEP_ALIVE_S: u16 = 3600;
const PAYLOAD: &[u8] = br#"{"temperature":21.5,"state":"running","order":7}"#;

/// How to reach one listener.
#[derive(Clone)]
pub(crate) struct Wire {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A device that was let in.
pub(crate) struct Device {
    number: usize,
    stream: Box<dyn Stream>,
}

impl Wire {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    pub(crate) fn tls(address: SocketAddr, connector: TlsConnector) -> Self {
        Self {
            address,
            tls: Some(connector),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects as client `name`; done when CONNACK has let it in.
    pub(crate) async fn device(&self, name: &str, number: usize) -> io::Result<Device> {
        let socket = open(self.address, number).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(socket),
            Some(connector) => {
                let server = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Box::new(connector.connect(server, socket).await?)
            }
        };
        let mut device = Device { number, stream };
        device.exchange(&connect(name), &[0x20, 2, 0, 0]).await?;
        Ok(device)
    }
}

/// From the address that the number gives: all of 127.0.0.0/8 are this machine's. It is reset when it is dropped, as
/// that of a device without power, so that no port waits behind it.
pub(crate) async fn open(to: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + number / PER_ADDRESS).map_err(io::Error::other)?;
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_zero_linger()?;
    Ok(stream)
}

impl Device {
    /// Subscribes to its commands, and publishes one message at QoS 1.
    pub(crate) async fn take_part(&mut self) -> io::Result<()> {
        let filter = format!("devices/{}/commands", self.number);
        let subscribe = [&[0, 1][..], &text(&filter), &[1]].concat();
        self.exchange(&packet(0x82, &subscribe), &[0x90, 3, 0, 1, 1])
            .await?;
        let topic = format!("devices/{}/telemetry", self.number);
        self.exchange(&publish(&topic, 1), &puback(1)).await
    }

    async fn exchange(&mut self, packet: &[u8], answer: &[u8]) -> io::Result<()> {
        self.stream.write_all(packet).await?;
        let mut got = vec![0; answer.len()];
        self.stream.read_exact(&mut got).await?;
        match got == answer {
            true => Ok(()),
            false => Err(io::Error::other(format!("the gateway answered {got:02x?}"))),
        }
    }
}

pub(crate) fn connect(name: &str) -> Vec<u8> {
    let head = [b"\0\x04MQTT\x04\x02".as_slice(), &KEEP_ALIVE_S.to_be_bytes()].concat();
    packet(0x10, &[head, text(name)].concat())
}

/// QoS 1.
pub(crate) fn publish(topic: &str, packet_id: u16) -> Vec<u8> {
    let body = [&text(topic), packet_id.to_be_bytes().as_slice(), PAYLOAD].concat();
    packet(0x32, &body)
}

pub(crate) const fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [0x40, 2, high, low]
}

/// Bodies below 128 bytes.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    debug_assert!(length < 128, "one byte says the length");
    [&[first, length], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}
