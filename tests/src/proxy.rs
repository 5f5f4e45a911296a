//! A TCP proxy that stands between two parts and does what a network does: pass, fall silent, break.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

const BUFFER_BYTES: usize = 16 * 1024;

/// What the network does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Passes,
    /// Connections stand, also new ones, and nothing moves; what was sent meanwhile arrives afterwards.
    Silent,
    /// What the server says is lost on the way, and connections stand: it did what it was told, and nobody knows.
    LosesAnswers,
    /// Connections are reset, and new ones too.
    Down,
}

#[derive(Debug, Clone, Copy)]
struct State {
    network: Network,
    /// Connections that are older than the last cut are reset.
    cuts: u64,
    /// Those that are older than the last of these pass nothing on any more.
    abandons: u64,
}

/// A running proxy; it goes with its connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Proxy {
    /// Listens on a free loopback port in front of `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let passes = State {
            network: Network::Passes,
            cuts: 0,
            abandons: 0,
        };
        let (state, stop) = (watch::Sender::new(passes), CancellationToken::new());
        let open = Arc::new(AtomicUsize::new(0));
        let (seen, counted) = (state.subscribe(), Arc::clone(&open));
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, seen.clone(), Counted::new(&counted)));
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Self {
            address,
            state,
            open,
            _stop: stop.drop_guard(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| {
            state.network = network;
            state.cuts += u64::from(network == Network::Down);
        });
    }

    /// Resets every connection that stands; new ones pass.
    pub fn cut(&self) {
        self.set(Network::Down);
        self.set(Network::Passes);
    }

    /// New connections pass; those that stand never will again, and neither end is told.
    pub fn abandon(&self) {
        self.state.send_modify(|state| {
            state.network = Network::Passes;
            state.abandons += 1;
        });
    }

    /// Connections that clients have through it.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection until both sides have ended it, it is cut or the proxy is dropped.
async fn connection(
    mut client: TcpStream,
    server: SocketAddr,
    state: watch::Receiver<State>,
    _counted: Counted,
) {
    let began = *state.borrow();
    let is_whole = began.network != Network::Down && {
        let mut ending = state.clone();
        tokio::select! {
            ended = relay(&mut client, server, Wire { state, began }) => ended.is_ok(),
            _cut = ending.wait_for(|now| now.cuts != began.cuts) => false,
        }
    };
    if !is_whole {
        // Dropped, the socket is reset, as by a server that was killed.
        let _gone = client.set_zero_linger();
    }
}

async fn relay(client: &mut TcpStream, server: SocketAddr, mut wire: Wire) -> io::Result<()> {
    wire.moves().await?;
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::try_join!(
        forward(from_client, to_server, wire.clone(), false),
        forward(from_server, to_client, wire, true)
    )?;
    Ok(())
}

/// One connection's view of the network.
#[derive(Clone)]
struct Wire {
    state: watch::Receiver<State>,
    began: State,
}

impl Wire {
    /// Waits while nothing moves.
    async fn moves(&mut self) -> io::Result<State> {
        let moving = self.state.wait_for(|now| now.network != Network::Silent).await;
        moving.map(|now| *now).map_err(io::Error::other)
    }
}

async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut wire: Wire,
    is_answer: bool,
) -> io::Result<()> {
    let mut bytes = vec![0; BUFFER_BYTES];
    loop {
        // Unread while it is silent: what is sent fills the kernel's buffers, as towards a host that is gone.
        wire.moves().await?;
        let read = from.read(&mut bytes).await;
        let now = wire.moves().await?;
        if now.abandons != wire.began.abandons {
            match read {
                Ok(1..) => continue,
                Ok(0) | Err(_) => return Ok(()),
            }
        }
        let read = read?;
        if read == 0 {
            return to.shutdown().await;
        }
        if !(is_answer && now.network == Network::LosesAnswers) {
            to.write_all(&bytes[..read]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A proxy in front of a server that sends back what it gets.
    async fn before_an_echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap_or_default()
                });
            }
        });
        Proxy::start(address).await
    }

    async fn answers(socket: &mut TcpStream, byte: u8) -> bool {
        socket.write_all(&[byte]).await.unwrap();
        let mut answer = [0];
        let read = tokio::time::timeout(Duration::from_millis(300), socket.read_exact(&mut answer)).await;
        read.is_ok_and(|read| read.is_ok() && answer == [byte])
    }

    #[tokio::test]
    async fn what_a_silent_network_holds_back_arrives_when_it_passes_again() {
        let proxy = before_an_echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut old, 1).await);
        proxy.set(Network::Silent);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!answers(&mut old, 2).await && !answers(&mut new, 3).await);
        proxy.set(Network::Passes);
        let mut late = [0];
        old.read_exact(&mut late).await.unwrap();
        assert_eq!(late, [2]);
        new.read_exact(&mut late).await.unwrap();
        assert_eq!(late, [3]);
    }

    #[tokio::test]
    async fn an_abandoned_connection_stays_open_and_silent_and_a_new_one_passes() {
        let proxy = before_an_echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut old, 1).await);
        proxy.set(Network::Silent);
        proxy.abandon();
        assert!(!answers(&mut old, 2).await, "it is dead, and no error says so");
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut new, 3).await);
    }

    #[tokio::test]
    async fn a_side_that_has_said_everything_still_hears_the_answer_and_a_cut_is_a_reset() {
        let proxy = before_an_echo().await;
        let mut ended = TcpStream::connect(proxy.address()).await.unwrap();
        ended.write_all(b"last").await.unwrap();
        ended.shutdown().await.unwrap();
        let mut heard = Vec::new();
        ended.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last");

        let mut cut = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut cut, 1).await);
        proxy.cut();
        let error = cut.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
