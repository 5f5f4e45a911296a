//! A front over a store that keeps nothing and answers at once: for conformance suites and measurements by hand.
//!
//! `cargo run --release -p shopfloor-broker --example front -- 127.0.0.1:1883`

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use shopfloor_broker::Front;
use shopfloor_broker::config::{AuthConfig, BrokerConfig};
use shopfloor_broker::tap::{Batch, Receipt, Refused, Tap, Verdict, receipt};
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_runtime::shutdown;

struct Nowhere;

impl Tap for Nowhere {
    fn offer(&self, batch: Batch) -> Result<Receipt, Refused> {
        let (sender, receipt) = receipt();
        sender.resolve(vec![Verdict::Stored; batch.messages.len()]);
        Ok(receipt)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let config = BrokerConfig {
        listeners: vec![ListenerConfig::new(listen.parse()?)],
        auth: AuthConfig {
            allow_anonymous: true,
            ..AuthConfig::default()
        },
        // It is there to be measured.
        max_packets_per_s: 0,
        max_bytes_per_s: 0,
        ..BrokerConfig::default()
    };
    let front = Front::new(config, Arc::new(Nowhere), shutdown::on_signal()?);
    let listeners = front.bind().await?;
    front.serve(listeners).await;
    Ok(())
}
