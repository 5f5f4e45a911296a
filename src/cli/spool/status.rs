//! `shopfloor spool status`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;
use shopfloor_bridge::contract::timestamp::production_time;
use shopfloor_bridge::record::Envelope;
use shopfloor_bridge::spool::SpoolConfig;
use shopfloor_bridge::spool::inspect::{Inspection, Step};

use super::Where;
use crate::cli::output::Output;
use crate::cli::plain::{MAX_FIELD_CHARS, plain, plain_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Where,
    /// All of it as one JSON object.
    #[arg(long)]
    json: bool,
}

/// How far one sink is.
struct Sink {
    name: String,
    /// `None` where its cursor cannot be read.
    position: Option<u64>,
    lag_records: u64,
    lag_bytes: u64,
    /// When the first record was accepted that it has not confirmed.
    oldest_ms: Option<i64>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode> {
    let (data_dir, limits) = args.place.data_dir()?;
    let inspection = Inspection::open(&data_dir.join("spool"))?;
    let cursors = super::sinks(&inspection);
    let sinks = cursors.map(|cursor| {
        let from = cursor.position.unwrap_or_else(|| inspection.first_sequence());
        Ok(Sink {
            name: cursor.name.clone(),
            position: cursor.position,
            lag_records: inspection.next_sequence().saturating_sub(from),
            lag_bytes: inspection.bytes_from(from)?,
            oldest_ms: received_ms(&inspection, from)?,
        })
    });
    let sinks = sinks.collect::<Result<Vec<_>>>()?;
    let dead_letters = kept_dead_letters(&data_dir);
    if args.json {
        let status = as_json(&inspection, &sinks, limits.as_ref(), dead_letters);
        writeln!(out, "{}", plain_json(&status))?;
    } else {
        print(&inspection, &sinks, limits.as_ref(), dead_letters, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// When the first record at or behind `from` was accepted.
fn received_ms(inspection: &Inspection, from: u64) -> Result<Option<i64>> {
    let mut walk = inspection.walk(from);
    while let Some(step) = walk.step()? {
        let Step::Records(records) = step else { continue };
        let readable = records
            .iter()
            .find_map(|stored| Envelope::decode(&stored.meta).ok());
        if let Some(envelope) = readable {
            return Ok(Some(envelope.received_ms));
        }
    }
    Ok(None)
}

/// Dead letters that Kafka did not take either; none where there is no such spool.
fn kept_dead_letters(data_dir: &Path) -> u64 {
    Inspection::open(&data_dir.join("dead-letters")).map_or(0, |kept| {
        let settled = kept.cursors().iter().filter_map(|cursor| cursor.position).min();
        kept.next_sequence()
            .saturating_sub(settled.unwrap_or_else(|| kept.first_sequence()))
    })
}

fn print(
    inspection: &Inspection,
    sinks: &[Sink],
    limits: Option<&SpoolConfig>,
    dead_letters: u64,
    out: &mut Output,
) -> Result<()> {
    let gateway = inspection.gateway_id().unwrap_or("unknown");
    let running = match inspection.holder() {
        Some(process) => format!("running, process {process}"),
        None => "not running, as far as this machine's kernel shows".to_owned(),
    };
    writeln!(
        out,
        "gateway       {} ({running})",
        plain(gateway, MAX_FIELD_CHARS)
    )?;
    writeln!(out, "directory     {}", inspection.dir().display())?;
    let next = inspection.next_sequence();
    writeln!(
        out,
        "records       sequences {} to {} are on disk; the next will be {next}",
        inspection.first_sequence(),
        next.saturating_sub(1)
    )?;
    writeln!(out, "files         {}", files(inspection, limits))?;
    if let Some(free) = inspection.free_disk_bytes() {
        let reserve = limits.map_or(String::new(), |limits| {
            format!(
                ", of which {} stay free (min_free_disk_bytes)",
                bytes(limits.min_free_disk_bytes)
            )
        });
        writeln!(out, "disk          {} free{reserve}", bytes(free))?;
    }
    for sink in sinks {
        writeln!(
            out,
            "sink {:<8} {}",
            plain(&sink.name, MAX_FIELD_CHARS),
            lag(sink)
        )?;
    }
    if dead_letters > 0 {
        writeln!(
            out,
            "dead letters  {dead_letters} kept on disk, since Kafka refused them: see `shopfloor dlq list`"
        )?;
    }
    Ok(())
}

fn files(inspection: &Inspection, limits: Option<&SpoolConfig>) -> String {
    let used = format!(
        "{} segments and {} spares, {}",
        inspection.segments().len(),
        inspection.spares(),
        bytes(inspection.bytes())
    );
    match limits {
        None => used,
        Some(limits) if is_full(inspection, limits) => format!(
            "{used} of {} (max_bytes): no room for a further segment; when the newest is full nothing is acknowledged \
             until the slowest sink has caught up",
            bytes(limits.max_bytes)
        ),
        Some(limits) => format!("{used} of {} (max_bytes)", bytes(limits.max_bytes)),
    }
}

/// As the gateway decides whether it may begin a segment.
fn is_full(inspection: &Inspection, limits: &SpoolConfig) -> bool {
    let full = inspection.bytes().saturating_add(limits.segment_max_bytes) > limits.max_bytes;
    let short = inspection
        .free_disk_bytes()
        .is_some_and(|free| free.saturating_sub(limits.segment_max_bytes) < limits.min_free_disk_bytes);
    inspection.spares() == 0 && (full || short)
}

fn lag(sink: &Sink) -> String {
    let Some(position) = sink.position else {
        return "its cursor cannot be read: at the next start it begins at the oldest record".to_owned();
    };
    if sink.lag_records == 0 {
        return format!("at {position}: has everything");
    }
    let since = sink
        .oldest_ms
        .and_then(production_time)
        .map_or(String::new(), |time| {
            let age = sink.oldest_ms.map_or(0, age_ms);
            format!("; the oldest was accepted {time}, {} ago", duration(age))
        });
    format!(
        "at {position}: {} records, {} behind{since}",
        sink.lag_records,
        bytes(sink.lag_bytes)
    )
}

fn as_json(
    inspection: &Inspection,
    sinks: &[Sink],
    limits: Option<&SpoolConfig>,
    dead_letters: u64,
) -> serde_json::Value {
    let sinks: Vec<_> = sinks
        .iter()
        .map(|sink| {
            json!({
                "sink": sink.name,
                "position": sink.position,
                "lag_records": sink.lag_records,
                "lag_bytes": sink.lag_bytes,
                "oldest_received": sink.oldest_ms.and_then(production_time),
                "oldest_age_ms": sink.oldest_ms.map(age_ms),
            })
        })
        .collect();
    json!({
        "gateway": inspection.gateway_id(),
        "process": inspection.holder(),
        "directory": inspection.dir().display().to_string(),
        "first_sequence": inspection.first_sequence(),
        "next_sequence": inspection.next_sequence(),
        "segments": inspection.segments().len(),
        "spares": inspection.spares(),
        "bytes": inspection.bytes(),
        "max_bytes": limits.map(|limits| limits.max_bytes),
        "full": limits.map(|limits| is_full(inspection, limits)),
        "free_disk_bytes": inspection.free_disk_bytes(),
        "min_free_disk_bytes": limits.map(|limits| limits.min_free_disk_bytes),
        "sinks": sinks,
        "dead_letters_on_disk": dead_letters,
    })
}

fn age_ms(since_ms: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_sub(u64::try_from(since_ms).unwrap_or_default())
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}
