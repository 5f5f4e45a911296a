//! `shopfloor dlq list`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use shopfloor_bridge::contract::timestamp::production_time;
use shopfloor_bridge::dead_letters::letter::DeadLetter;
use shopfloor_bridge::dead_letters::settled::Settlement;

use super::Where;
use super::letter_json::letter_json;
use super::which::{Which, read_from_ms};
use crate::cli::output::Output;
use crate::cli::plain::{MAX_FIELD_CHARS, plain, plain_json};

const MAX_REASON_CHARS: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    which: Which,
    /// At most so many letters.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Also those that were replayed or dropped.
    #[arg(long)]
    settled: bool,
    /// One JSON object a letter, payloads whole.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, out: &mut Output) -> Result<ExitCode> {
    let desk = args.place.desk()?;
    let filter = args.which.filter();
    let from_ms = read_from_ms(&filter);
    let settled = desk.settled(from_ms).await?;
    let mut letters = desk.letters(from_ms);
    let mut listed = 0;
    while let Some(letter) = letters.recv().await {
        let letter = letter?;
        let settlement = settled.of(letter.place);
        let wanted = args.settled || settlement.is_none();
        if !wanted || letter.repeats.is_some() || !filter.matches(&letter) {
            continue;
        }
        if listed == args.limit {
            eprintln!("shopfloor: there are more; raise --limit, or narrow with filters");
            return Ok(ExitCode::SUCCESS);
        }
        listed += 1;
        if args.json {
            writeln!(out, "{}", plain_json(&letter_json(&letter, settlement)))?;
        } else {
            print(&letter, settlement, out)?;
        }
    }
    eprintln!("shopfloor: {listed} dead letters");
    Ok(ExitCode::SUCCESS)
}

fn print(letter: &DeadLetter, settlement: Option<Settlement>, out: &mut Output) -> Result<()> {
    let field = |text: &str| plain(text, MAX_FIELD_CHARS);
    let id = letter
        .record_id
        .map_or_else(|| "no id".to_owned(), |id| id.to_string());
    write!(
        out,
        "{}  {id}  {}",
        letter.received_ms.and_then(production_time).unwrap_or_default(),
        letter.place
    )?;
    if let Some(settlement) = settlement {
        write!(out, "  {}", settlement.name())?;
    }
    write!(
        out,
        "  {}  client={}",
        field(&letter.mqtt_topic),
        field(&letter.client_id)
    )?;
    if let Some(machine) = letter.machine() {
        write!(out, "  machine={}", field(&machine))?;
    }
    writeln!(out, "  {}", plain(&letter.reason, MAX_REASON_CHARS))?;
    Ok(())
}
