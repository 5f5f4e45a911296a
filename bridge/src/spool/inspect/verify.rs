//! Every byte read, every problem told: which file, where in it, which sequences.

use std::fmt;
use std::io;
use std::ops::Range;

use super::walk::record_bytes;
use super::{Inspection, Step, Verified, VerifyError};
use crate::spool::error::Cause;
use crate::spool::format::FORMAT_VERSION;

/// One problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the segment or the cursor; empty for what no file holds.
    pub file: String,
    /// Bytes in that file, where some are meant.
    pub offsets: Option<Range<u64>>,
    /// The records that it is about, where some are.
    pub sequences: Option<Range<u64>>,
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Both copies of a segment's header are gone, and with them the key to its records.
    HeaderLost,
    /// One of the two copies.
    HeaderCopy,
    Version {
        found: u32,
    },
    /// The header speaks of another segment than the name.
    Misnamed {
        first_sequence: u64,
    },
    /// Neither progress slot is whole.
    NoProgress,
    OtherGateway {
        found: String,
        expected: String,
    },
    /// Records that cannot be read.
    Lost(Cause),
    CursorLost,
    /// A cursor stands before the oldest record.
    CursorBehind {
        position: u64,
    },
    /// A cursor stands behind what is there.
    CursorAhead {
        position: u64,
    },
}

impl Fault {
    /// A word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::HeaderLost => "header_lost",
            Self::HeaderCopy => "header_copy_damaged",
            Self::Version { .. } => "version",
            Self::Misnamed { .. } => "misnamed",
            Self::NoProgress => "no_progress_slot",
            Self::OtherGateway { .. } => "other_gateway",
            Self::Lost(Cause::Corrupt) => "corrupt",
            Self::Lost(Cause::CorruptOrTorn) => "corrupt_or_torn",
            Self::Lost(Cause::Removed) => "removed",
            Self::CursorLost => "cursor_lost",
            Self::CursorBehind { .. } => "cursor_behind",
            Self::CursorAhead { .. } => "cursor_ahead",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderLost => f.write_str(
                "both copies of the segment's header are damaged; nothing in it can be read any more",
            ),
            Self::HeaderCopy => {
                f.write_str("one of the two copies of the segment's header is damaged; the other one serves")
            }
            Self::Version { found } => write!(
                f,
                "format version {found} is not known here (this build knows {FORMAT_VERSION}); look with the newer build"
            ),
            Self::Misnamed { first_sequence } => write!(
                f,
                "its header says that it begins at sequence {first_sequence}; give the file its name back"
            ),
            Self::NoProgress => f.write_str(
                "neither of its progress slots is whole; a restart has to read all of it to find its end",
            ),
            Self::OtherGateway { found, expected } => write!(
                f,
                "it belongs to gateway {found:?} and the others to {expected:?}; a gateway does not start with both"
            ),
            Self::Lost(cause) => write!(f, "lost: {cause}"),
            Self::CursorLost => f.write_str(
                "neither of its slots is whole; at its next start its sink begins at the oldest record",
            ),
            Self::CursorBehind { position } => write!(
                f,
                "it stands at {position}, before the oldest record: what is between was removed undelivered"
            ),
            Self::CursorAhead { position } => write!(
                f,
                "it stands at {position}, behind the last record: the segments that it has passed are not there"
            ),
        }
    }
}

type Tell<'a> = &'a mut dyn FnMut(&Problem) -> io::Result<()>;

struct Telling<'a> {
    tell: Tell<'a>,
    verified: Verified,
}

impl Telling<'_> {
    fn problem(&mut self, problem: &Problem) -> Result<(), VerifyError> {
        self.verified.problems += 1;
        (self.tell)(problem).map_err(VerifyError::Told)
    }
}

pub(super) fn verify(inspection: &Inspection, tell: Tell<'_>) -> Result<Verified, VerifyError> {
    let mut telling = Telling {
        tell,
        verified: Verified {
            segments: inspection.segments.len(),
            ..Verified::default()
        },
    };
    for problem in &inspection.problems {
        telling.problem(problem)?;
    }
    gateways(inspection, &mut telling)?;
    cursors(inspection, &mut telling)?;
    records(inspection, &mut telling)?;
    Ok(telling.verified)
}

fn gateways(inspection: &Inspection, telling: &mut Telling<'_>) -> Result<(), VerifyError> {
    let Some(expected) = inspection.gateway_id() else {
        return Ok(());
    };
    let named = inspection
        .segments
        .iter()
        .filter(|segment| !segment.gateway_id.is_empty());
    for segment in named.filter(|segment| segment.gateway_id != expected) {
        telling.problem(&Problem {
            file: segment.name.clone(),
            offsets: None,
            sequences: Some(segment.sequences.clone()),
            fault: Fault::OtherGateway {
                found: segment.gateway_id.clone(),
                expected: expected.to_owned(),
            },
        })?;
    }
    Ok(())
}

fn cursors(inspection: &Inspection, telling: &mut Telling<'_>) -> Result<(), VerifyError> {
    let first = inspection.first_sequence();
    let end = inspection
        .segments
        .last()
        .map_or(first, |newest| newest.sequences.end);
    for cursor in &inspection.cursors {
        let (sequences, fault) = match cursor.position {
            None => (None, Fault::CursorLost),
            Some(position) if position < first => (Some(position..first), Fault::CursorBehind { position }),
            Some(position) if position > end => (Some(end..position), Fault::CursorAhead { position }),
            Some(_) => continue,
        };
        telling.problem(&Problem {
            file: format!("cursor-{}", cursor.name),
            offsets: None,
            sequences,
            fault,
        })?;
    }
    Ok(())
}

fn records(inspection: &Inspection, telling: &mut Telling<'_>) -> Result<(), VerifyError> {
    let mut walk = inspection.walk(0);
    while let Some(step) = walk.step()? {
        match step {
            Step::Records(records) => {
                telling.verified.records += records.len() as u64;
                telling.verified.bytes += records.iter().map(record_bytes).sum::<u64>();
            }
            Step::Lost {
                segment,
                offsets,
                sequences,
                cause,
            } => telling.problem(&Problem {
                offsets: segment.is_some().then_some(offsets),
                file: segment.unwrap_or_default(),
                sequences: Some(sequences),
                fault: Fault::Lost(cause),
            })?,
        }
    }
    Ok(())
}
