//! `shopfloor spool verify`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use shopfloor_bridge::spool::inspect::{Inspection, Problem};

use super::Where;
use crate::cli::output::Output;
use crate::cli::plain::{MAX_FIELD_CHARS, plain, plain_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Where,
    /// One JSON object a problem, and one for the sum.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode> {
    let inspection = args.place.inspect()?;
    let verified = inspection.verify(&mut |problem| {
        if args.json {
            writeln!(out, "{}", plain_json(&as_json(&inspection, problem)))
        } else {
            print(&inspection, problem, out)
        }
    })?;
    let whole = verified.problems == 0;
    if args.json {
        let sum = json!({
            "whole": whole, "segments": verified.segments, "records": verified.records, "bytes": verified.bytes,
            "problems": verified.problems,
        });
        writeln!(out, "{}", plain_json(&sum))?;
    } else {
        writeln!(
            out,
            "{}: {} whole records ({} bytes) in {} segments, {}",
            inspection.dir().display(),
            verified.records,
            verified.bytes,
            verified.segments,
            match verified.problems {
                0 => "no problem".to_owned(),
                1 => "1 problem".to_owned(),
                many => format!("{many} problems"),
            },
        )?;
    }
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(inspection: &Inspection, problem: &Problem, out: &mut Output) -> io::Result<()> {
    if problem.file.is_empty() {
        write!(out, "no segment")?;
    } else {
        write!(out, "{}", plain(&problem.file, MAX_FIELD_CHARS))?;
    }
    if let Some(offsets) = &problem.offsets {
        write!(
            out,
            ", bytes {} to {}",
            offsets.start,
            offsets.end.saturating_sub(1)
        )?;
    }
    let named = problem
        .sequences
        .as_ref()
        .filter(|sequences| !sequences.is_empty());
    if let Some(sequences) = named {
        let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
        let sinks = super::undelivered_to(inspection, sequences).join(" and ");
        let to = if sinks.is_empty() {
            "delivered".to_owned()
        } else {
            format!("not all delivered to {sinks}")
        };
        write!(out, ", sequences {first} to {last} ({to})")?;
    }
    writeln!(out, ": {}", plain(&problem.fault.to_string(), usize::MAX))
}

fn as_json(inspection: &Inspection, problem: &Problem) -> serde_json::Value {
    let sequences = problem
        .sequences
        .clone()
        .filter(|sequences| !sequences.is_empty());
    json!({
        "file": (!problem.file.is_empty()).then_some(&problem.file),
        "problem": problem.fault.kind(),
        "text": problem.fault.to_string(),
        "first_byte": problem.offsets.as_ref().map(|offsets| offsets.start),
        "end_byte": problem.offsets.as_ref().map(|offsets| offsets.end),
        "first_sequence": sequences.as_ref().map(|sequences| sequences.start),
        "last_sequence": sequences.as_ref().map(|sequences| sequences.end - 1),
        "undelivered_to": sequences.as_ref().map(|sequences| super::undelivered_to(inspection, sequences)),
    })
}
