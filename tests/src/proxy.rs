//! A TCP proxy that stands between two parts and does what a network does: pass, fall silent, break.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

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

/// One connection until either side ends it, it is cut or the proxy is dropped.
async fn connection(client: TcpStream, server: SocketAddr, state: watch::Receiver<State>, _counted: Counted) {
    // Dropped, the socket is reset, as by a server that was killed.
    let _reset = client.set_zero_linger();
    let began = *state.borrow();
    if began.network == Network::Down {
        return;
    }
    let mut ending = state.clone();
    let cut = ending.wait_for(|now| now.cuts != began.cuts);
    let through = async move {
        let server = TcpStream::connect(server).await?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            ended = forward(from_client, to_server, state.clone(), false) => ended,
            ended = forward(from_server, to_client, state, true) => ended,
        }
    };
    tokio::select! {
        _ended = through => {}
        _cut = cut => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    is_answer: bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let moving = state.wait_for(|now| now.network != Network::Silent).await;
        let network = moving.map_err(io::Error::other)?.network;
        if !(is_answer && network == Network::LosesAnswers) {
            to.write_all(&bytes[..read]).await?;
        }
    }
}
