//! The records of an inspected spool, in order, with what is missing among them.

use std::ops::Range;
use std::sync::Arc;

use super::{InspectError, Inspection, SegmentView};
use crate::spool::Stored;
use crate::spool::cold::{Piece, Place};
use crate::spool::error::Cause;
use crate::spool::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// What a walk comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// In order, each one whole. They share the buffer of one read, about 1 MiB.
    Records(Vec<Stored>),
    /// These cannot be read.
    Lost {
        /// The segment's file; none where no segment holds them.
        segment: Option<String>,
        /// Where in the file they should stand.
        offsets: Range<u64>,
        sequences: Range<u64>,
        cause: Cause,
    },
}

/// Goes through the records that were there when the spool was looked at.
#[derive(Debug)]
pub struct Walk<'a> {
    inspection: &'a Inspection,
    /// The next sequence.
    position: u64,
    /// Index of the segment that is read, and where.
    segment: usize,
    place: Option<Place>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(inspection: &'a Inspection, from: u64) -> Self {
        let segments = inspection.segments();
        let segment = segments.partition_point(|segment| segment.sequences.end <= from);
        // What was removed as delivered is not missing.
        let first = segments.first().map_or(from, |oldest| oldest.sequences.start);
        Self {
            inspection,
            position: from.max(first),
            segment,
            place: None,
        }
    }

    /// `None` at the end.
    pub fn step(&mut self) -> Result<Option<Step>, InspectError> {
        while let Some(segment) = self.inspection.segments().get(self.segment) {
            if self.position < segment.sequences.start {
                let sequences = self.position..segment.sequences.start;
                self.position = segment.sequences.start;
                return Ok(Some(Step::Lost {
                    segment: None,
                    offsets: 0..0,
                    sequences,
                    cause: Cause::Removed,
                }));
            }
            if self.position >= segment.sequences.end {
                self.next_segment();
                continue;
            }
            match self.step_in(segment)? {
                Some(step) => return Ok(Some(step)),
                // It was delivered and has gone since: nothing of it is missing.
                None => {
                    self.position = segment.sequences.end;
                    self.next_segment();
                }
            }
        }
        Ok(None)
    }

    fn next_segment(&mut self) {
        self.segment += 1;
        self.place = None;
    }

    fn step_in(&mut self, segment: &SegmentView) -> Result<Option<Step>, InspectError> {
        let Some(salt) = segment.salt else {
            let sequences = self.position..segment.sequences.end;
            self.position = segment.sequences.end;
            return Ok(Some(lost(
                segment,
                SEGMENT_HEADER_BYTES..segment.len_bytes,
                sequences,
            )));
        };
        if self.place.is_none() {
            let path = self.inspection.dir.join(&segment.name);
            let file = match self.inspection.fs.open_read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(InspectError::io("open", &path))?,
            };
            self.place = Some(Place::first(file, salt, segment.sequences.start));
        }
        let Some(place) = &mut self.place else {
            return Ok(None);
        };
        let before = place.offset;
        let read = place.read(self.position, segment.sequences.end, segment.len_bytes);
        let Piece { records, damaged } =
            read.map_err(InspectError::io("read", &self.inspection.dir.join(&segment.name)))?;
        if let Some(last) = records.back() {
            self.position = last.sequence + 1;
            return Ok(Some(Step::Records(records.into())));
        }
        let offsets = before..place.offset;
        let Some(damaged) = damaged else { return Ok(None) };
        if !self.inspection.is_still_there(segment) {
            return Ok(None);
        }
        let sequences = damaged.start.max(self.position)..damaged.end.max(self.position);
        self.position = sequences.end;
        if sequences.is_empty() {
            // Before the place where the walk began.
            return self.step();
        }
        Ok(Some(lost(segment, offsets, sequences)))
    }
}

fn lost(segment: &SegmentView, offsets: Range<u64>, sequences: Range<u64>) -> Step {
    let doubtful = sequences.start >= segment.proven_sequence;
    Step::Lost {
        segment: Some(segment.name.clone()),
        offsets,
        sequences,
        cause: if doubtful {
            Cause::CorruptOrTorn
        } else {
            Cause::Corrupt
        },
    }
}

/// Bytes of a record on disk.
pub(super) fn record_bytes(stored: &Stored) -> u64 {
    RECORD_HEADER_BYTES + stored.meta.len() as u64 + stored.payload.len() as u64
}

pub(super) fn bytes_from(inspection: &Inspection, from: u64) -> Result<u64, InspectError> {
    let mut bytes = 0;
    for segment in inspection.segments() {
        let end_offset = segment.end_offset.filter(|_| segment.sequences.start >= from);
        if let Some(end_offset) = end_offset {
            bytes += end_offset.saturating_sub(SEGMENT_HEADER_BYTES);
        } else if segment.sequences.end > from {
            let alone = Inspection {
                fs: Arc::clone(&inspection.fs),
                dir: inspection.dir.clone(),
                segments: vec![segment.clone()],
                cursors: Vec::new(),
                spares: 0,
                spare_bytes: 0,
                problems: Vec::new(),
            };
            let mut walk = alone.walk(from);
            while let Some(step) = walk.step()? {
                if let Step::Records(records) = step {
                    bytes += records.iter().map(record_bytes).sum::<u64>();
                }
            }
        }
    }
    Ok(bytes)
}
