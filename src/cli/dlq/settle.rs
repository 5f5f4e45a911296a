//! `shopfloor dlq replay` and `shopfloor dlq drop`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use shopfloor_bridge::dead_letters::desk::Desk;
use shopfloor_bridge::dead_letters::letter::{DeadLetter, Filter};
use shopfloor_bridge::dead_letters::plan::{Planner, Way};
use shopfloor_bridge::dead_letters::replay::Settler;
use shopfloor_bridge::dead_letters::settled::Settlement;

use super::Where;
use super::which::{Which, one, read_from_ms};
use crate::cli::output::Output;
use crate::cli::plain::plain;

/// Letters and bytes of one transaction and of one batch to the API.
const MAX_CHUNK_LETTERS: usize = 200;
const MAX_CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Say what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DropArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Really drop all that the filters match; without it they are only counted.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Chosen {
    /// One letter: the id of its record, or its place.
    #[arg(conflicts_with_all = ["topic", "client", "machine", "reason", "since", "until", "all"])]
    id: Option<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    which: Which,
    /// Every letter that is not settled.
    #[arg(long)]
    all: bool,
    /// At most so many letters.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Chosen {
    fn filter(&self) -> Result<Filter> {
        if let Some(id) = &self.id {
            return one(id);
        }
        let filter = self.which.filter();
        if filter.is_empty() && !self.all {
            bail!("which letters: name an id, a filter (see --help), or --all");
        }
        Ok(filter)
    }

    fn limit(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX)
    }
}

/// What became of the letters.
#[derive(Default)]
struct Sums {
    /// Matched and not settled.
    found: u64,
    done: u64,
    refused: u64,
    /// Matched, and settled by somebody before.
    before: u64,
    /// Copies of letters that are not settled yet.
    copies: Vec<DeadLetter>,
}

pub(super) async fn replay(args: &ReplayArgs, out: &mut Output) -> Result<ExitCode> {
    let filter = args.chosen.filter()?;
    let desk = args.chosen.place.desk()?.with_kafka()?;
    let planner = Planner::new(&desk)?;
    if args.dry_run {
        return rehearse(&args.chosen, &desk, &planner, &filter, out).await;
    }
    let from_ms = read_from_ms(&filter);
    let mut settler = Settler::begin(&desk, from_ms).await?;
    let mut letters = desk.letters(from_ms);
    let (mut sums, mut chunk) = (Sums::default(), Chunk::default());
    while let Some(letter) = letters.recv().await {
        let Some(letter) = sums.take(letter?, &filter, &settler, args.chosen.limit()) else {
            continue;
        };
        match planner.plan(&letter) {
            Ok(way) => chunk.push(letter, way),
            Err(why) => sums.refused(&letter, &why, out)?,
        }
        if chunk.is_full() || sums.copies.len() >= MAX_CHUNK_LETTERS {
            send(&mut settler, &mut chunk, &mut sums, out).await?;
        }
    }
    send(&mut settler, &mut chunk, &mut sums, out).await?;
    let api = settler.api_counts;
    settler.end().await?;
    writeln!(
        out,
        "{} replayed, {} still refused, {} settled before",
        sums.done, sums.refused, sums.before
    )?;
    if api.stored + api.duplicates + api.quarantined > 0 {
        writeln!(
            out,
            "the production API stored {}, had {} already, holds {} in quarantine",
            api.stored, api.duplicates, api.quarantined
        )?;
    }
    Ok(sums.code(args.chosen.id.is_some()))
}

async fn rehearse(
    chosen: &Chosen,
    desk: &Desk,
    planner: &Planner,
    filter: &Filter,
    out: &mut Output,
) -> Result<ExitCode> {
    let from_ms = read_from_ms(filter);
    let settled = desk.settled(from_ms).await?;
    let mut letters = desk.letters(from_ms);
    let mut sums = Sums::default();
    while let Some(letter) = letters.recv().await {
        let letter = letter?;
        let open = settled.of(letter.place).is_none();
        if letter.repeats.is_some() || !filter.matches(&letter) {
            continue;
        }
        if !open {
            sums.before += 1;
            continue;
        }
        if sums.found == chosen.limit() {
            break;
        }
        sums.found += 1;
        match planner.plan(&letter) {
            Ok(way) => {
                sums.done += 1;
                writeln!(
                    out,
                    "{}  would go to {}",
                    name(&letter),
                    plain(&way.describe(), usize::MAX)
                )?;
            }
            Err(why) => sums.refused(&letter, &why, out)?,
        }
    }
    writeln!(
        out,
        "{} would be replayed, {} are still refused, {} were settled before; nothing was changed",
        sums.done, sums.refused, sums.before
    )?;
    Ok(sums.code(chosen.id.is_some()))
}

pub(super) async fn give_up(args: &DropArgs, out: &mut Output) -> Result<ExitCode> {
    let filter = args.chosen.filter()?;
    let desk = args.chosen.place.desk()?;
    let from_ms = read_from_ms(&filter);
    if args.chosen.id.is_none() && !args.yes {
        let found = count(&desk, &filter, from_ms, args.chosen.limit()).await?;
        bail!(
            "{found} letters match; add --yes to drop them, after a look at `dlq list` with the same filters"
        );
    }
    let mut settler = Settler::begin(&desk, from_ms).await?;
    let mut letters = desk.letters(from_ms);
    let (mut sums, mut chunk) = (Sums::default(), Vec::new());
    while let Some(letter) = letters.recv().await {
        let Some(mut letter) = sums.take(letter?, &filter, &settler, args.chosen.limit()) else {
            continue;
        };
        // A mark needs none of it.
        letter.payload = Default::default();
        chunk.push(letter);
        if chunk.len() >= MAX_CHUNK_LETTERS || sums.copies.len() >= MAX_CHUNK_LETTERS {
            forget(&mut settler, &mut chunk, &mut sums, out).await?;
        }
    }
    forget(&mut settler, &mut chunk, &mut sums, out).await?;
    settler.end().await?;
    writeln!(out, "{} dropped, {} settled before", sums.done, sums.before)?;
    Ok(sums.code(args.chosen.id.is_some()))
}

async fn count(desk: &Desk, filter: &Filter, from_ms: Option<i64>, limit: u64) -> Result<u64> {
    let settled = desk.settled(from_ms).await?;
    let mut letters = desk.letters(from_ms);
    let mut found = 0;
    while let Some(letter) = letters.recv().await {
        let letter = letter?;
        let open = settled.of(letter.place).is_none() && letter.repeats.is_none();
        found += u64::from(open && filter.matches(&letter));
        if found == limit {
            break;
        }
    }
    Ok(found)
}

async fn send(settler: &mut Settler, chunk: &mut Chunk, sums: &mut Sums, out: &mut Output) -> Result<()> {
    let letters = std::mem::take(chunk).letters;
    let outcomes = settler.replay(&letters).await?;
    for ((letter, way), outcome) in letters.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                sums.done += 1;
                writeln!(
                    out,
                    "{}  replayed to {}",
                    name(letter),
                    plain(&way.describe(), usize::MAX)
                )?;
            }
            Err(why) => sums.refused(letter, &why, out)?,
        }
    }
    out.flush()?;
    sums.settle_copies(settler).await
}

async fn forget(
    settler: &mut Settler,
    chunk: &mut Vec<DeadLetter>,
    sums: &mut Sums,
    out: &mut Output,
) -> Result<()> {
    let letters = std::mem::take(chunk);
    settler.settle(&letters, Settlement::Dropped).await?;
    for letter in &letters {
        sums.done += 1;
        writeln!(out, "{}  dropped", name(letter))?;
    }
    out.flush()?;
    sums.settle_copies(settler).await
}

/// Letters that travel together.
#[derive(Default)]
struct Chunk {
    letters: Vec<(DeadLetter, Way)>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, letter: DeadLetter, way: Way) {
        self.bytes += letter.payload.len();
        self.letters.push((letter, way));
    }

    fn is_full(&self) -> bool {
        self.letters.len() >= MAX_CHUNK_LETTERS || self.bytes >= MAX_CHUNK_BYTES
    }
}

impl Sums {
    /// The letter, if something is to be done with it.
    fn take(
        &mut self,
        mut letter: DeadLetter,
        filter: &Filter,
        settler: &Settler,
        limit: u64,
    ) -> Option<DeadLetter> {
        if !filter.matches(&letter) {
            return None;
        }
        if settler.settled().of(letter.place).is_some() {
            self.before += u64::from(letter.repeats.is_none());
            return None;
        }
        if letter.repeats.is_some() {
            letter.payload = Default::default();
            self.copies.push(letter);
            return None;
        }
        if self.found >= limit {
            return None;
        }
        self.found += 1;
        Some(letter)
    }

    /// A copy of a letter that is settled by now gets its own mark: retention may take the first one before it.
    async fn settle_copies(&mut self, settler: &mut Settler) -> Result<()> {
        for copy in std::mem::take(&mut self.copies) {
            if let Some(settlement) = settler.is_settled_copy(&copy) {
                settler.settle(&[copy], settlement).await?;
            }
        }
        Ok(())
    }

    fn refused(&mut self, letter: &DeadLetter, why: &str, out: &mut Output) -> Result<()> {
        self.refused += 1;
        writeln!(out, "{}  still refused: {}", name(letter), plain(why, usize::MAX))?;
        Ok(())
    }

    fn code(&self, one: bool) -> ExitCode {
        if one && self.found + self.before == 0 {
            eprintln!(
                "shopfloor: there is no such letter; `dlq list --settled` shows all that retention has left"
            );
            return ExitCode::FAILURE;
        }
        if self.refused > 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn name(letter: &DeadLetter) -> String {
    match letter.record_id {
        Some(id) => format!("{id}  {}", letter.place),
        None => letter.place.to_string(),
    }
}
