//! A wire that can hang: a TCP relay that stops passing bytes on, and tells nobody.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

const BUFFER_BYTES: usize = 16 * 1024;

/// A relay from a loopback port of its own to `to`. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    wire: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    hangs: watch::Sender<bool>,
    accepted: AtomicU64,
    /// Connections below this number pass nothing on any more.
    dead: AtomicU64,
}

impl Link {
    pub fn open(runtime: &Handle, to: SocketAddr) -> io::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let wire = Arc::new(Shared {
            hangs: watch::channel(false).0,
            accepted: AtomicU64::new(0),
            dead: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        runtime.spawn(accept(listener, to, Arc::clone(&wire), stop.clone()));
        Ok(Self {
            address,
            wire,
            _stop: stop.drop_guard(),
        })
    }

    /// Where to connect instead.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on no byte passes: not of the connections that there are, not of new ones.
    pub fn hang(&self) {
        self.wire.hangs.send_replace(true);
    }

    /// Bytes pass again, what was held back first.
    pub fn release(&self) {
        self.wire.hangs.send_replace(false);
    }

    /// New connections pass again; those that there are never will, and neither end is told.
    pub fn abandon(&self) {
        let accepted = self.wire.accepted.load(Ordering::SeqCst);
        self.wire.dead.store(accepted, Ordering::SeqCst);
        self.release();
    }
}

impl Shared {
    async fn passes(&self) {
        let mut hangs = self.hangs.subscribe();
        // The sender lives in `self`: it is never closed.
        let _passes = hangs.wait_for(|hangs| !hangs).await.is_ok();
    }

    fn is_dead(&self, number: u64) -> bool {
        number < self.dead.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, wire: Arc<Shared>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((near, _from)) = accepted else { continue };
        let number = wire.accepted.fetch_add(1, Ordering::SeqCst);
        let (wire, stop) = (Arc::clone(&wire), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = relay(near, to, number, &wire) => {}
            }
        });
    }
}

async fn relay(mut near: TcpStream, to: SocketAddr, number: u64, wire: &Shared) {
    wire.passes().await;
    // A target that is down closes the near end, as it would itself.
    let Ok(mut far) = TcpStream::connect(to).await else {
        return;
    };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let ((near_out, near_in), (far_out, far_in)) = (near.split(), far.split());
    tokio::join!(
        pass_on(near_out, far_in, number, wire),
        pass_on(far_out, near_in, number, wire)
    );
}

async fn pass_on(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, number: u64, wire: &Shared) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // Unread while it hangs: what is sent fills the kernel's buffers, as towards a host that is gone.
        wire.passes().await;
        let read = from.read(&mut buffer).await.unwrap_or(0);
        wire.passes().await;
        match (read, wire.is_dead(number)) {
            (0, true) => return,
            (0, false) => break,
            (_, true) => {}
            (read, false) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    let _gone = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sends back what it gets.
    async fn echo() -> SocketAddr {
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
        address
    }

    async fn answers(socket: &mut TcpStream, byte: u8) -> bool {
        socket.write_all(&[byte]).await.unwrap();
        let mut answer = [0];
        let read = tokio::time::timeout(Duration::from_millis(300), socket.read_exact(&mut answer)).await;
        read.is_ok_and(|read| read.is_ok() && answer == [byte])
    }

    fn with_link<F: Future>(test: impl FnOnce(Link) -> F) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let target = runtime.block_on(echo());
        let link = Link::open(runtime.handle(), target).unwrap();
        runtime.block_on(test(link));
    }

    #[test]
    fn what_a_hanging_wire_holds_back_arrives_when_it_is_released() {
        with_link(|link| async move {
            let mut old = TcpStream::connect(link.address()).await.unwrap();
            assert!(answers(&mut old, 1).await);
            link.hang();
            let mut new = TcpStream::connect(link.address()).await.unwrap();
            assert!(!answers(&mut old, 2).await && !answers(&mut new, 3).await);
            link.release();
            let mut late = [0];
            old.read_exact(&mut late).await.unwrap();
            assert_eq!(late, [2]);
            new.read_exact(&mut late).await.unwrap();
            assert_eq!(late, [3]);
        });
    }

    #[test]
    fn an_abandoned_connection_stays_open_and_silent_and_a_new_one_passes() {
        with_link(|link| async move {
            let mut old = TcpStream::connect(link.address()).await.unwrap();
            assert!(answers(&mut old, 1).await);
            link.hang();
            link.abandon();
            assert!(!answers(&mut old, 2).await, "it is dead, and no error says so");
            let mut new = TcpStream::connect(link.address()).await.unwrap();
            assert!(answers(&mut new, 3).await);
        });
    }
}
