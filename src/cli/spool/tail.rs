//! `shopfloor spool tail`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use shopfloor_bridge::contract::timestamp::production_time;
use shopfloor_bridge::record::{Destination, Envelope};
use shopfloor_bridge::spool::Stored;
use shopfloor_bridge::spool::inspect::{Inspection, Step};
use uuid::Uuid;

use super::Where;
use crate::cli::output::Output;
use crate::cli::plain::{MAX_FIELD_CHARS, hex, plain, plain_bytes, plain_json};

const DEFAULT_RECORDS: u64 = 10;
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
const MAX_PAYLOAD_CHARS: usize = 120;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Where,
    /// At most this many records; without --from, --sink and --follow the last 10.
    #[arg(short = 'n', long, value_name = "N")]
    records: Option<u64>,
    /// Begin at this sequence.
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "sink")]
    from: Option<u64>,
    /// Begin where this sink is (kafka, api): what it has still to deliver.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Go on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a record, payloads whole.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode> {
    let inspection = args.place.inspect()?;
    let from = begin(args, &inspection)?;
    let mut left = args.records.unwrap_or(u64::MAX);
    // What is there first: there a gap is damage, and said.
    let mut walk = inspection.walk(from);
    let mut position = from;
    while left > 0
        && let Some(step) = walk.step()?
    {
        match step {
            Step::Records(records) => {
                for stored in records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                    print(stored, args.json, out)?;
                    left -= 1;
                    position = stored.sequence + 1;
                }
            }
            Step::Lost { sequences, cause, .. } => {
                eprintln!(
                    "shopfloor: sequences {} to {} are not there: {cause}; see `shopfloor spool verify`",
                    sequences.start,
                    sequences.end.saturating_sub(1)
                );
                position = sequences.end;
            }
        }
    }
    if args.follow {
        follow(args, &inspection, position, left, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn begin(args: &Args, inspection: &Inspection) -> Result<u64> {
    if let Some(sink) = &args.sink {
        let known = || {
            let names: Vec<_> = super::sinks(inspection)
                .map(|cursor| cursor.name.as_str())
                .collect();
            names.join(", ")
        };
        let cursor = super::sinks(inspection).find(|cursor| cursor.name == *sink);
        let cursor =
            cursor.ok_or_else(|| anyhow!("--sink {sink:?}: there is no such sink; use {}", known()))?;
        return Ok(cursor.position.unwrap_or_else(|| inspection.first_sequence()));
    }
    let last = args.records.unwrap_or(DEFAULT_RECORDS);
    Ok(args
        .from
        .unwrap_or_else(|| inspection.next_sequence().saturating_sub(last))
        .max(inspection.first_sequence()))
}

fn follow(args: &Args, inspection: &Inspection, from: u64, mut left: u64, out: &mut Output) -> Result<()> {
    // `-n` says how far back to begin; what comes is not limited by it.
    if args.from.is_none() && args.sink.is_none() {
        left = u64::MAX;
    }
    let mut follow = inspection.follow(from);
    while left > 0 {
        let records = follow.poll()?;
        if records.is_empty() {
            out.flush()?;
            std::thread::sleep(FOLLOW_INTERVAL);
        }
        for stored in records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            print(stored, args.json, out)?;
            left -= 1;
        }
    }
    Ok(())
}

fn print(stored: &Stored, json: bool, out: &mut Output) -> Result<()> {
    if json {
        writeln!(out, "{}", plain_json(&as_json(stored)))?;
        return Ok(());
    }
    let payload = plain_bytes(&stored.payload, MAX_PAYLOAD_CHARS);
    let envelope = match Envelope::decode(&stored.meta) {
        Ok(envelope) => envelope,
        Err(error) => {
            writeln!(
                out,
                "{}  envelope unreadable ({error})  {payload}",
                stored.sequence
            )?;
            return Ok(());
        }
    };
    let time = production_time(envelope.received_ms).unwrap_or_default();
    let field = |text: &str| plain(text, MAX_FIELD_CHARS);
    write!(
        out,
        "{}  {time}  {}  key={}  client={}  to {}",
        stored.sequence,
        field(envelope.topic),
        field(envelope.key),
        field(envelope.client_id),
        destination(envelope.destination),
    )?;
    if !envelope.reason.is_empty() {
        write!(out, " ({})", plain(envelope.reason, MAX_PAYLOAD_CHARS))?;
    }
    writeln!(out, "  {payload}")?;
    Ok(())
}

fn destination(destination: Destination) -> &'static str {
    match destination {
        Destination::KafkaAndApi => "kafka+api",
        Destination::Kafka => "kafka",
        Destination::Api => "api",
        Destination::DeadLetter(_) => "dead letters",
        Destination::Release => "nobody: the end of a QoS 2 exchange",
    }
}

fn as_json(stored: &Stored) -> Value {
    let text = std::str::from_utf8(&stored.payload).ok();
    let mut value = match Envelope::decode(&stored.meta) {
        Ok(envelope) => json!({
            "sequence": stored.sequence,
            "received": production_time(envelope.received_ms),
            "record_id": Uuid::from_bytes(envelope.record_id).to_string(),
            "topic": envelope.topic,
            "key": envelope.key,
            "machine": envelope.machine,
            "mqtt_topic": envelope.mqtt_topic,
            "client_id": envelope.client_id,
            "destination": destination(envelope.destination),
            "reason": (!envelope.reason.is_empty()).then_some(envelope.reason),
        }),
        Err(error) => json!({ "sequence": stored.sequence, "envelope_unreadable": error.to_string() }),
    };
    if let Some(object) = value.as_object_mut() {
        match text {
            Some(text) => object.insert("payload".into(), text.into()),
            None => object.insert("payload_hex".into(), hex(&stored.payload).into()),
        };
    }
    value
}
