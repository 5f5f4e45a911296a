//! Publishers that go on through everything, and how long each PUBACK took. They keep to a clock, whatever the gateway
//! does: a message that had to wait for its turn counts from the moment when it was due.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::device::{connect, open, puback, publish};

const PUBLISHERS: usize = 20;
/// Of each: 400 messages a second together.
const INTERVAL: Duration = Duration::from_millis(50);
const PUBACK_BYTES: usize = puback(0).len();
/// For the last acknowledgements.
const LAST: Duration = Duration::from_secs(10);

/// One message: when it was due, and how long after that its PUBACK came.
#[derive(Debug, Clone, Copy)]
struct Sample {
    due: Instant,
    took: Duration,
}

/// On a thread of their own: the crowds' tasks do not delay what is measured here.
pub(crate) struct Steady {
    stop: CancellationToken,
    thread: JoinHandle<Result<Published>>,
}

/// What became of their messages.
#[derive(Debug, Default)]
pub(crate) struct Published {
    acknowledged: Vec<Sample>,
    pub(crate) unacknowledged: usize,
}

impl Steady {
    pub(crate) fn start(to: SocketAddr) -> Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("publishers".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(publish_all(to, &stopped))
            })?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) -> Result<Published> {
        self.stop.cancel();
        let ended = self.thread.join();
        ended.map_err(|_panic| anyhow!("the publishers' thread panicked"))?
    }
}

impl Published {
    /// How long those took that were due in that time, shortest first.
    pub(crate) fn due_in(&self, time: &Range<Instant>) -> Vec<Duration> {
        let due = self
            .acknowledged
            .iter()
            .filter(|sample| time.contains(&sample.due));
        let mut took = due.map(|sample| sample.took).collect::<Vec<_>>();
        took.sort_unstable();
        took
    }
}

async fn publish_all(to: SocketAddr, stop: &CancellationToken) -> Result<Published> {
    let mut publishing = JoinSet::new();
    for number in 0..PUBLISHERS {
        let stop = stop.clone();
        publishing.spawn(async move { publish_steadily(number, to, &stop).await });
    }
    let mut all = Published::default();
    while let Some(ended) = publishing.join_next().await {
        let one = ended?.context("a steady publisher lost its connection")?;
        all.acknowledged.extend(one.acknowledged);
        all.unacknowledged += one.unacknowledged;
    }
    Ok(all)
}

async fn publish_steadily(number: usize, to: SocketAddr, stop: &CancellationToken) -> io::Result<Published> {
    let mut stream = open(to, number).await?;
    stream.write_all(&connect(&format!("steady-{number}"))).await?;
    stream.read_exact(&mut [0; 4]).await?;
    let topic = format!("steady/{number}");
    let (mut waiting, mut acknowledged) = (VecDeque::new(), Vec::new());
    let mut got = BytesMut::new();
    let mut packet_id = 0_u16;
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            due = clock.tick() => {
                packet_id = packet_id.checked_add(1).unwrap_or(1);
                waiting.push_back((packet_id, due.into_std()));
                stream.write_all(&publish(&topic, packet_id)).await?;
            }
            read = stream.read_buf(&mut got) => take_pubacks(read?, &mut got, &mut waiting, &mut acknowledged)?,
            () = stop.cancelled() => break,
        }
    }
    let last = async {
        while !waiting.is_empty() {
            let read = stream.read_buf(&mut got).await?;
            take_pubacks(read, &mut got, &mut waiting, &mut acknowledged)?;
        }
        Ok::<_, io::Error>(())
    };
    if let Ok(read) = tokio::time::timeout(LAST, last).await {
        read?;
    }
    Ok(Published {
        acknowledged,
        unacknowledged: waiting.len(),
    })
}

/// They come in the order of their messages.
fn take_pubacks(
    read: usize,
    got: &mut BytesMut,
    waiting: &mut VecDeque<(u16, Instant)>,
    acknowledged: &mut Vec<Sample>,
) -> io::Result<()> {
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    while got.len() >= PUBACK_BYTES {
        let got = got.split_to(PUBACK_BYTES);
        let (packet_id, due) = waiting
            .pop_front()
            .ok_or_else(|| io::Error::other("a PUBACK for nothing"))?;
        if *got != puback(packet_id) {
            return Err(io::Error::other(format!("{got:02x?} for message {packet_id}")));
        }
        let took = due.elapsed();
        acknowledged.push(Sample { due, took });
    }
    Ok(())
}
