//! Takes a directory in: names, one page of every segment, the end of the newest, the cursors.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::verify::{Fault, Problem};
use super::{CursorView, InspectError, Inspection, SegmentView};
use crate::spool::catalog::{first_sequence_of, is_spare};
use crate::spool::cursor_file;
use crate::spool::filesystem::{Filesystem, LogFile, read_full_at};
use crate::spool::format::{FORMAT_VERSION, Progress, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::spool::recovery::{Tail, scan_tail};

/// Looks at an end that seems damaged: a live gateway may have been writing it at that very moment.
const TAIL_LOOKS: u32 = 4;
const TAIL_PAUSE: Duration = Duration::from_millis(25);

pub(super) fn look(fs: Arc<dyn Filesystem>, dir: &Path) -> Result<Inspection, InspectError> {
    let listed = fs.list(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            InspectError::NoDirectory { dir: dir.to_owned() }
        }
        _ => InspectError::io("list", dir)(error),
    })?;
    let mut found: Vec<(u64, String)> = listed
        .iter()
        .filter_map(|file| Some((first_sequence_of(&file.name)?, file.name.clone())))
        .collect();
    found.sort_unstable();
    if found.is_empty() && !listed.iter().any(|file| file.name == "lock") {
        return Err(InspectError::NoSpool { dir: dir.to_owned() });
    }
    let spares = listed.iter().filter(|file| is_spare(&file.name));
    let mut inspection = Inspection {
        dir: dir.to_owned(),
        segments: Vec::with_capacity(found.len()),
        cursors: Vec::new(),
        spares: spares.clone().count(),
        spare_bytes: spares.map(|file| file.len_bytes).sum(),
        problems: Vec::new(),
        fs,
    };
    // Cursors first: a sink that goes on in the meantime is then not ahead of the segments.
    for file in &listed {
        inspection.look_at_cursor(&file.name)?;
    }
    let ends = found.iter().skip(1).map(|(next, _)| Some(*next)).chain([None]);
    for ((first_sequence, name), next_first) in found.iter().zip(ends) {
        inspection.look_at_segment(name, *first_sequence, next_first)?;
    }
    Ok(inspection)
}

impl Inspection {
    fn look_at_cursor(&mut self, file_name: &str) -> Result<(), InspectError> {
        let path = self.dir.join(file_name);
        match cursor_file::look(&*self.fs, &self.dir, file_name) {
            Ok(Some((name, position))) => self.cursors.push(CursorView {
                name: name.to_owned(),
                position,
            }),
            Ok(None) => {}
            // Forgotten in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(InspectError::io("read", &path)(error)),
        }
        Ok(())
    }

    /// A segment that is gone in the meantime was delivered, and is left out.
    fn look_at_segment(
        &mut self,
        name: &str,
        first_sequence: u64,
        next_first: Option<u64>,
    ) -> Result<(), InspectError> {
        let path = self.dir.join(name);
        let file = match self.fs.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(InspectError::io("open", &path))?,
        };
        let read = read_segment(&*file, name, first_sequence, next_first);
        let (segment, faults) = read.map_err(InspectError::io("read", &path))?;
        let sequences = segment.sequences.clone();
        self.problems.extend(faults.into_iter().map(|fault| Problem {
            file: name.to_owned(),
            offsets: Some(0..SEGMENT_HEADER_BYTES),
            sequences: Some(sequences.clone()),
            fault,
        }));
        self.segments.push(segment);
        Ok(())
    }

    /// Whether a segment still is the one that was looked at, and not delivered and recycled since.
    pub(super) fn is_still_there(&self, segment: &SegmentView) -> bool {
        let header = self.fs.open_read(&self.dir.join(&segment.name)).and_then(|file| {
            let page = read_page(&*file)?;
            Ok(SegmentHeader::parse(&page))
        });
        match header {
            Ok(header) => header.is_none_or(|header| Some(header.salt) == segment.salt),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

fn read_page(file: &dyn LogFile) -> io::Result<Vec<u8>> {
    let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
    let filled = read_full_at(file, &mut page, 0)?;
    page.truncate(filled);
    Ok(page)
}

fn read_segment(
    file: &dyn LogFile,
    name: &str,
    first_sequence: u64,
    next_first: Option<u64>,
) -> io::Result<(SegmentView, Vec<Fault>)> {
    let page = read_page(file)?;
    let len_bytes = file.len_bytes()?;
    let mut faults = Vec::new();
    let mut segment = SegmentView {
        name: name.to_owned(),
        sequences: first_sequence..next_first.unwrap_or(first_sequence),
        len_bytes,
        end_offset: None,
        created_ms: 0,
        sealed: next_first.is_some(),
        gateway_id: String::new(),
        salt: None,
        proven_sequence: u64::MAX,
    };
    let Some(header) = SegmentHeader::parse(&page) else {
        faults.push(Fault::HeaderLost);
        return Ok((segment, faults));
    };
    if SegmentHeader::whole_copies(&page) < 2 {
        faults.push(Fault::HeaderCopy);
    }
    if header.version != FORMAT_VERSION {
        faults.push(Fault::Version {
            found: header.version,
        });
        return Ok((segment, faults));
    }
    if header.first_sequence != first_sequence {
        faults.push(Fault::Misnamed {
            first_sequence: header.first_sequence,
        });
        return Ok((segment, faults));
    }
    segment.gateway_id.clone_from(&header.gateway_id);
    segment.created_ms = header.created_ms;
    segment.salt = Some(header.salt);
    let progress = Progress::parse(&page, header.salt);
    if progress.is_none() {
        faults.push(Fault::NoProgress);
    }
    if let Some(sealed) = progress.filter(|progress| progress.sealed) {
        segment.sealed = true;
        segment.sequences.end = sealed.end_sequence.min(next_first.unwrap_or(u64::MAX));
        segment.end_offset = Some(sealed.end_offset);
        segment.proven_sequence = sealed.proven_sequence;
    } else if next_first.is_none() {
        let tail = read_tail(file, &header, len_bytes, progress)?;
        segment.sequences.end = tail.end_sequence;
        segment.end_offset = Some(tail.end_offset);
        segment.proven_sequence = tail.proven_sequence;
    }
    segment.sequences.end = segment.sequences.end.max(first_sequence);
    Ok((segment, faults))
}

/// Where the records of the newest segment end.
fn read_tail(
    file: &dyn LogFile,
    header: &SegmentHeader,
    len_bytes: u64,
    progress: Option<Progress>,
) -> io::Result<Tail> {
    let bounds = SEGMENT_HEADER_BYTES..=len_bytes;
    let progress = progress.filter(|progress| bounds.contains(&progress.end_offset));
    let start = match progress {
        Some(progress) => (progress.end_offset, progress.end_sequence, progress.commit),
        None => (SEGMENT_HEADER_BYTES, header.first_sequence, 0),
    };
    let (offset, sequence, commit) = start;
    // Without a slot the whole segment is read.
    let reach_bytes = progress.map_or(u64::MAX, |_| header.reach_bytes);
    let until = offset.saturating_add(reach_bytes).min(len_bytes);
    let mut looks = 0;
    loop {
        let mut bytes = vec![0; usize::try_from(until.saturating_sub(offset)).unwrap_or_default()];
        let filled = read_full_at(file, &mut bytes, offset)?;
        bytes.truncate(filled);
        let tail = scan_tail(bytes, header.salt, offset, sequence, commit);
        looks += 1;
        if tail.damaged.is_empty() || looks == TAIL_LOOKS {
            return Ok(tail);
        }
        std::thread::sleep(TAIL_PAUSE);
    }
}
