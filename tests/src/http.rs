//! A REST client that can choose its own address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A response; headers as they came, their names in lower case.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

/// `GET path` from 127.0.0.1.
pub fn get(to: SocketAddr, path: &str) -> io::Result<Response> {
    request(Ipv4Addr::LOCALHOST.into(), to, "GET", path)
}

/// One request without a body, on a connection of its own, from the address `from`. All of 127.0.0.0/8 are this
/// machine's: to HAProxy they are different clients.
pub fn request(from: IpAddr, to: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, exchange(from, to, method, path))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
    })?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, answer))
}

async fn exchange(from: IpAddr, to: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(to).await?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let (status_line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    Some(Response {
        status: status_line.split(' ').nth(1)?.parse().ok()?,
        headers: headers.to_lowercase(),
        body: body.to_owned(),
    })
}
