//! Messages for a bridge without a front.

// A measurement that cannot go on ends.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use shopfloor_bridge::Bridge;
use shopfloor_broker::tap::{Batch, Published, Publisher, Receipt, Refused, Tap, Topic};

const MACHINES: usize = 50;
/// Messages of one offer, as a busy connection's read makes them.
pub const BATCH: usize = 250;
/// Offers that wait for the disk at a time, as many connections make them.
const OPEN_OFFERS: usize = 16;
/// The payload of a unit.
pub fn unit(machine: usize, order: usize) -> String {
    format!(
        r#"{{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":{order},"var5":false,"machineId":{machine},"partId":4}}"#
    )
}

/// What one connection's read makes: so many messages, slices of one buffer.
pub fn batch(number: usize) -> Vec<Published> {
    let machine = number % MACHINES + 1;
    let publisher = Arc::new(Publisher {
        client_id: format!("machine-{machine}"),
        user: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        v5: false,
    });
    // One read buffer, sliced, as the front does it.
    let mut texts = Vec::new();
    let ends: Vec<usize> = (0..BATCH)
        .map(|order| {
            texts.extend_from_slice(unit(machine, order).as_bytes());
            texts.len()
        })
        .collect();
    let buffer = Bytes::from(texts);
    let mut begin = 0;
    ends.into_iter()
        .map(|end| {
            let payload = buffer.slice(begin..end);
            begin = end;
            Published {
                topic: Topic::from("supply-chain"),
                payload,
                qos: 1,
                retain: false,
                properties: None,
                publisher: publisher.clone(),
                received_ms: 1_702_166_400_000,
                exchange: None,
            }
        })
        .collect()
}

async fn offer(bridge: &Bridge, messages: Vec<Published>) -> Receipt {
    let mut batch = Batch::from(messages);
    loop {
        match bridge.tap().offer(batch) {
            Ok(receipt) => return receipt,
            Err(Refused::Busy(back)) => {
                batch = back;
                bridge.tap().room().await;
            }
            Err(Refused::Closed(_)) => panic!("the spool is closed"),
        }
    }
}

/// Offers that many batches, a few at a time, and waits until all are on disk.
pub async fn offer_all(bridge: &Bridge, batches: Vec<Vec<Published>>) {
    let mut open = VecDeque::new();
    for batch in batches {
        if open.len() == OPEN_OFFERS
            && let Some(oldest) = open.pop_front()
        {
            let oldest: Receipt = oldest;
            oldest.await.expect("stored");
        }
        open.push_back(offer(bridge, batch).await);
    }
    for receipt in open {
        receipt.await.expect("stored");
    }
}
