//! A short simulated shift, and what arrived of it: counted in Kafka and in Postgres, not by Shopfloor's own counters.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shopfloor::reference;
use shopfloor::simulate::{self, Config, Speed};
use tokio_util::sync::CancellationToken;

use super::{DATABASE, Site, blocking, say};

const TOPIC: &str = "supply_chain";
/// How often arrivals are counted.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Without a further arrival for this long the count is final.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records and rows at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrived {
    kafka: u64,
    postgres: u64,
}

/// Loads the reference data, runs the shift, prints the summary. True where everything acknowledged arrived in both
/// places, exactly once in each.
pub(super) async fn run(site: &Site, messages: u64, stop: CancellationToken) -> Result<bool> {
    let loaded = reference::load(&format!("http://{}", site.rest))
        .await
        .context("cannot load the reference data")?;
    say(format_args!(
        "reference data: {}",
        if loaded.was_there() {
            "there already".to_owned()
        } else {
            format!(
                "{} materials, {} prices, {} parts, {} machines",
                loaded.materials, loaded.prices, loaded.parts, loaded.machines
            )
        }
    ));
    // What an earlier run left in a spool arrives first.
    let before = settled(site, &stop, None).await?;
    say(format_args!("50 machines produce {messages} units ..."));
    let config = Config {
        host: site.mqtt.ip().to_string(),
        port: site.mqtt.port(),
        messages: Some(messages),
        speed: Speed::Max,
        protobuf_share: 0.1,
        ..Config::default()
    };
    let summary = simulate::run(config, stop.clone())
        .await
        .context("the simulated shift failed")?;
    say(&summary);
    let goal = Arrived {
        kafka: before.kafka + summary.acknowledged,
        postgres: before.postgres + summary.acknowledged,
    };
    let after = settled(site, &stop, Some(goal)).await?;
    let (kafka, postgres) = (after.kafka - before.kafka, after.postgres - before.postgres);
    say(format_args!(
        "published {} acknowledged {} kafka {kafka} postgres {postgres}",
        summary.published, summary.acknowledged
    ));
    Ok(kafka == summary.acknowledged && postgres == summary.acknowledged)
}

/// Counts until `goal` is there, or nothing more arrives: two equal counts a second apart where no goal is given.
async fn settled(site: &Site, stop: &CancellationToken, goal: Option<Arrived>) -> Result<Arrived> {
    let still_after = if goal.is_some() {
        PATIENCE
    } else {
        Duration::from_secs(1)
    };
    let (mut last, mut changed) = (count(site).await?, Instant::now());
    while goal.is_none_or(|goal| last != goal) && changed.elapsed() < still_after {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.cancelled() => bail!("stopped before the shift was counted; nothing is lost"),
        }
        let now = count(site).await?;
        if now != last {
            (last, changed) = (now, Instant::now());
        }
    }
    Ok(last)
}

async fn count(site: &Site) -> Result<Arrived> {
    let records = site
        .kafka
        .count_records(vec![TOPIC.into()])
        .await
        .context("cannot count Kafka's records")?;
    let kafka = records.values().sum();
    let server = site.postgres.clone();
    let rows = blocking("count Postgres's rows", move || {
        server.psql(DATABASE, "select count(*) from supply_chain")
    });
    let rows = rows.await?;
    let postgres = rows
        .trim()
        .parse()
        .with_context(|| format!("psql answered {rows:?} to a count"))?;
    Ok(Arrived { kafka, postgres })
}
