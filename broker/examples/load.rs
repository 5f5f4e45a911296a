//! QoS 1 publishes, pipelined on many connections: messages acknowledged a second.
//!
//! `cargo run --release -p shopfloor-broker --example load -- 127.0.0.1:1883 [connections] [seconds] [window] [payload]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::main(worker_threads = 2)]
#[allow(clippy::print_stdout, clippy::indexing_slicing)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |at: usize, default: &str| std::env::args().nth(at).unwrap_or_else(|| default.to_owned());
    let address = argument(1, "127.0.0.1:1883");
    let connections = argument(2, "100").parse::<usize>()?;
    let seconds = argument(3, "5").parse::<u64>()?;
    let window = argument(4, "100").parse::<u16>()?;
    let payload = vec![b'x'; argument(5, "150").parse::<usize>()?];
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut devices = Vec::new();
    for number in 0..connections {
        let (address, payload, acknowledged) = (address.clone(), payload.clone(), Arc::clone(&acknowledged));
        devices.push(tokio::spawn(async move {
            let ended = device(&address, number, window, &payload, &acknowledged).await;
            eprintln!("device {number} ended: {ended:?}");
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, started) = (acknowledged.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let count = acknowledged.load(Ordering::Relaxed) - before;
    println!(
        "{:.0} acknowledged/s",
        count as f64 / started.elapsed().as_secs_f64()
    );
    devices.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// Keeps `window` publishes in flight: every read of PUBACKs is answered with as many publishes in one write.
#[allow(clippy::indexing_slicing)]
async fn device(
    address: &str,
    number: usize,
    window: u16,
    payload: &[u8],
    acknowledged: &AtomicU64,
) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let id = format!("load-{number}");
    let mut connect = vec![
        0x10,
        (12 + id.len()) as u8,
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        4,
        2,
        0,
        60,
        0,
        id.len() as u8,
    ];
    connect.extend(id.as_bytes());
    socket.write_all(&connect).await?;
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).await?;
    let topic = format!("factory/f1/{number}/supply-chain");
    let remaining = 2 + topic.len() + 2 + payload.len();
    let mut publish = vec![0x32];
    if remaining > 127 {
        publish.extend([(remaining & 0x7F) as u8 | 0x80, (remaining >> 7) as u8]);
    } else {
        publish.push(remaining as u8);
    }
    publish.extend([0, topic.len() as u8]);
    publish.extend(topic.as_bytes());
    let id_at = publish.len();
    publish.extend([0, 1]);
    publish.extend(payload);
    let mut packet_id = 0_u16;
    let (mut credit, mut partial, mut buffer) = (usize::from(window), 0, vec![0; 64 * 1024]);
    loop {
        let mut write = Vec::with_capacity(credit * publish.len());
        for _ in 0..credit {
            packet_id = packet_id.checked_add(1).unwrap_or(1);
            publish[id_at..id_at + 2].copy_from_slice(&packet_id.to_be_bytes());
            write.extend_from_slice(&publish);
        }
        socket.write_all(&write).await?;
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        credit = (partial + read) / 4;
        partial = (partial + read) % 4;
        acknowledged.fetch_add(credit as u64, Ordering::Relaxed);
    }
}
