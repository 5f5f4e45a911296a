//! So many connections at once, from several addresses.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncReadExt;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::device::{self, Device, Wire};

/// Handshakes under way while nothing is measured.
const AT_ONCE: usize = 100;
/// How long a crowd may take for anything.
const WITHIN: Duration = Duration::from_secs(120);
/// What a refused device waits before it tries again.
const RETRY: Duration = Duration::from_millis(200);
/// Silent connections that are opened together, and the time between two such groups: 5,000 in a second.
const SILENT_AT_ONCE: usize = 500;
const SILENT_INTERVAL: Duration = Duration::from_millis(100);
/// Beyond the gateway's own 10 s.
const SILENT_WITHIN: Duration = Duration::from_secs(20);
/// Between two newcomers.
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(50);

/// Devices that are connected.
pub(crate) struct Crowd {
    wire: Wire,
    devices: Vec<Device>,
}

pub(crate) struct Reconnected {
    pub(crate) served: usize,
    /// From the cut to the last CONNACK.
    pub(crate) within: Duration,
    /// Connections that failed before their device was let in.
    pub(crate) retried: usize,
}

fn name(number: usize) -> String {
    format!("device-{number}")
}

impl Crowd {
    /// Some at a time.
    pub(crate) async fn connect(count: usize, wire: Wire) -> Result<Self> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut connecting = JoinSet::new();
        for number in 0..count {
            let (places, wire) = (Arc::clone(&places), wire.clone());
            connecting.spawn(async move {
                let _place = places.acquire().await.map_err(io::Error::other)?;
                wire.device(&name(number), number).await
            });
        }
        let devices = all(connecting).await.context("connecting")?;
        Ok(Self { wire, devices })
    }

    pub(crate) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Each subscribes, publishes once and is acknowledged.
    pub(crate) async fn take_part(&mut self) -> Result<()> {
        let mut taking = JoinSet::new();
        for mut device in self.devices.drain(..) {
            taking.spawn(async move { device.take_part().await.map(|()| device) });
        }
        self.devices = all(taking).await.context("subscribing and publishing")?;
        Ok(())
    }

    /// Cuts all connections, then connects every device again, none waiting for another.
    pub(crate) async fn reconnect(&mut self) -> Result<Reconnected> {
        let count = self.devices.len();
        let together = Arc::new(Barrier::new(count + 1));
        let mut connecting = JoinSet::new();
        for number in 0..count {
            let (wire, together) = (self.wire.clone(), Arc::clone(&together));
            connecting.spawn(async move {
                together.wait().await;
                Ok(connect_until_served(&wire, number).await)
            });
        }
        // Every task stands at the barrier before the cut, so that the cut is not spread over their start.
        let begun = Instant::now();
        self.devices.clear();
        together.wait().await;
        let served = all(connecting).await.context("reconnecting")?;
        let within = begun.elapsed();
        let retried = served.iter().map(|(_, retried)| retried).sum();
        self.devices = served.into_iter().map(|(device, _)| device).collect();
        Ok(Reconnected {
            served: self.devices.len(),
            within,
            retried,
        })
    }
}

async fn connect_until_served(wire: &Wire, number: usize) -> (Device, usize) {
    let mut retried = 0;
    loop {
        match wire.device(&name(number), number).await {
            Ok(device) => return (device, retried),
            Err(_refused) => retried += 1,
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn all<T: 'static>(mut tasks: JoinSet<io::Result<T>>) -> Result<Vec<T>> {
    let (count, mut done) = (tasks.len(), Vec::new());
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        match tokio::time::timeout_at(deadline, tasks.join_next()).await {
            Ok(None) => return Ok(done),
            Ok(Some(ended)) => done.push(ended??),
            Err(_elapsed) => bail!(
                "{} of {count} were served within {} s",
                done.len(),
                WITHIN.as_secs()
            ),
        }
    }
}

/// Connections that never send a byte.
pub(crate) struct Silence {
    /// By the gateway. One that came when the kernel's backlog was full never was a connection for it.
    pub(crate) ended: usize,
    /// From the first one to the last end.
    pub(crate) within: Duration,
}

impl Silence {
    /// Opens them within seconds and waits until the gateway has closed them.
    pub(crate) async fn keep(count: usize, to: SocketAddr) -> Result<Self> {
        let begun = Instant::now();
        let mut waiting = JoinSet::new();
        for number in 0..count {
            if number % SILENT_AT_ONCE == 0 {
                tokio::time::sleep(SILENT_INTERVAL).await;
            }
            waiting.spawn(async move {
                let mut stream = device::open(to, number).await?;
                // A reset is an end too.
                let _end = stream.read(&mut [0]).await;
                io::Result::Ok(Instant::now())
            });
        }
        let (mut ended, mut last) = (0, begun);
        let patience = tokio::time::Instant::now() + SILENT_WITHIN;
        while let Ok(Some(end)) = tokio::time::timeout_at(patience, waiting.join_next()).await {
            ended += 1;
            last = last.max(end??);
        }
        Ok(Self {
            ended,
            within: last - begun,
        })
    }
}

/// Ordinary clients that come one after the other meanwhile.
pub(crate) struct Newcomers {
    coming: JoinHandle<io::Result<Vec<Duration>>>,
    stop: CancellationToken,
}

impl Newcomers {
    pub(crate) fn start(wire: Wire) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let coming = tokio::spawn(async move {
            let mut took = Vec::new();
            while !stopped.is_cancelled() {
                let begun = Instant::now();
                drop(wire.device("newcomer", 0).await?);
                took.push(begun.elapsed());
                tokio::time::sleep(NEWCOMER_INTERVAL).await;
            }
            Ok(took)
        });
        Self { coming, stop }
    }

    /// How long each waited for its CONNACK.
    pub(crate) async fn stop(self) -> Result<Vec<Duration>> {
        self.stop.cancel();
        self.coming.await?.context("a newcomer was not served")
    }
}
