//! `shopfloor dlq show`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use shopfloor_bridge::contract::timestamp::production_time;
use shopfloor_bridge::dead_letters::letter::DeadLetter;
use shopfloor_bridge::dead_letters::plan::{Plan, Planner};
use shopfloor_bridge::dead_letters::settled::Settlement;

use super::Where;
use super::letter_json::letter_json;
use super::which::{one, read_from_ms};
use crate::cli::output::Output;
use crate::cli::plain::{plain, plain_bytes, plain_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The id of its record, or its place.
    id: String,
    #[command(flatten)]
    place: Where,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, out: &mut Output) -> Result<ExitCode> {
    let desk = args.place.desk()?;
    let filter = one(&args.id)?;
    let from_ms = read_from_ms(&filter);
    let settled = desk.settled(from_ms).await?;
    let mut letters = desk.letters(from_ms);
    let mut found = false;
    while let Some(letter) = letters.recv().await {
        let letter = letter?;
        // The same record may lie in the topic and on disk.
        if !filter.matches(&letter) || (letter.repeats.is_some() && filter.place.is_none()) {
            continue;
        }
        found = true;
        let settlement = settled.of(letter.place);
        if args.json {
            writeln!(out, "{}", plain_json(&letter_json(&letter, settlement)))?;
        } else {
            let plan = Planner::new(&desk)?.plan(&letter);
            print(&letter, settlement, &plan, out)?;
        }
        if filter.place.is_some() {
            break;
        }
    }
    if !found {
        eprintln!(
            "shopfloor: there is no such letter; `dlq list --settled` shows all that retention has left"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(
    letter: &DeadLetter,
    settlement: Option<Settlement>,
    plan: &Plan,
    out: &mut Output,
) -> std::io::Result<()> {
    let received = letter.received_ms.and_then(production_time);
    let place = letter.place.to_string();
    let id = letter.record_id.map(|id| id.to_string());
    let sequence = (letter.sequence > 0).then(|| letter.sequence.to_string());
    let machine = letter.machine();
    let now = match plan {
        Ok(way) => format!("a replay would send it to {}", way.describe()),
        Err(why) => format!("a replay would be refused: {why}"),
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for (name, value) in [
        ("id", id),
        ("place", Some(place)),
        (
            "settled",
            settlement.map(|settlement| settlement.name().to_owned()),
        ),
        ("received", received),
        ("reason", text(&letter.reason)),
        ("refused by", Some(letter.refused_by.name().to_owned())),
        ("now", Some(now)),
        ("mqtt topic", text(&letter.mqtt_topic)),
        ("kafka topic", text(&letter.kafka_topic)),
        ("client id", text(&letter.client_id)),
        ("machine", machine),
        ("gateway", text(&letter.gateway)),
        ("sequence", sequence),
        ("key", text(&letter.key)),
        ("traceparent", text(&letter.traceparent)),
        ("format", letter.protobuf.then(|| "protobuf".to_owned())),
    ] {
        if let Some(value) = value {
            writeln!(out, "{name:<12} {}", plain(&value, usize::MAX))?;
        }
    }
    writeln!(out, "payload      {} bytes", letter.payload.len())?;
    writeln!(out, "{}", plain_bytes(&letter.payload, usize::MAX))
}
