//! Records as they come.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::InspectError;
use crate::spool::Stored;
use crate::spool::catalog::{first_sequence_of, segment_name};
use crate::spool::cold::Place;
use crate::spool::filesystem::{Filesystem, read_full_at};
use crate::spool::format::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// Reads behind a live gateway. It judges nothing: what is not whole may be on its way.
#[derive(Debug)]
pub struct Follow {
    fs: Arc<dyn Filesystem>,
    dir: PathBuf,
    position: u64,
    /// The segment that is read, and its length.
    place: Option<(Place, u64)>,
}

impl Follow {
    pub(super) fn new(fs: Arc<dyn Filesystem>, dir: PathBuf, from: u64) -> Self {
        Self {
            fs,
            dir,
            position: from,
            place: None,
        }
    }

    /// The next sequence.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What has come since the last call; about 1 MiB of it at most. A gap in the sequences is one in the spool.
    pub fn poll(&mut self) -> Result<Vec<Stored>, InspectError> {
        let dir = self.dir.clone();
        self.read().map_err(InspectError::io("read", &dir))
    }

    fn read(&mut self) -> io::Result<Vec<Stored>> {
        if self.place.is_none() {
            self.place = self.find()?;
        }
        loop {
            let Some((place, len_bytes)) = &mut self.place else {
                return Ok(Vec::new());
            };
            let records = place.available(self.position, *len_bytes)?;
            if let Some(last) = records.back() {
                self.position = last.sequence + 1;
                return Ok(records.into());
            }
            let here = place.sequence;
            let Some(next) = self.first_at_or_behind(here)? else {
                return Ok(Vec::new());
            };
            // A last look: what stands before the next segment was complete when that was begun.
            let records = match &mut self.place {
                Some((place, len_bytes)) => place.available(self.position, *len_bytes)?,
                None => return Ok(Vec::new()),
            };
            self.place = self.open(next)?;
            self.position = self.position.max(next);
            if let Some(last) = records.back() {
                self.position = self.position.max(last.sequence + 1);
                return Ok(records.into());
            }
        }
    }

    /// The segment in which the position is.
    fn find(&self) -> io::Result<Option<(Place, u64)>> {
        let mut firsts = self.firsts()?;
        firsts.sort_unstable();
        let before = firsts.iter().rev().find(|first| **first <= self.position);
        match before.or(firsts.first()) {
            Some(first) => self.open(*first),
            None => Ok(None),
        }
    }

    /// The first segment other than the one that is read that begins at `sequence` or later.
    fn first_at_or_behind(&self, sequence: u64) -> io::Result<Option<u64>> {
        let reading = self.place.as_ref().map(|(place, _)| place.first_sequence);
        let firsts = self.firsts()?.into_iter();
        Ok(firsts
            .filter(|first| *first >= sequence && Some(*first) != reading)
            .min())
    }

    fn firsts(&self) -> io::Result<Vec<u64>> {
        let listed = self.fs.list(&self.dir)?;
        Ok(listed
            .iter()
            .filter_map(|file| first_sequence_of(&file.name))
            .collect())
    }

    /// `None` where it has gone, or its header cannot be read.
    fn open(&self, first_sequence: u64) -> io::Result<Option<(Place, u64)>> {
        let file = match self.fs.open_read(&self.path(first_sequence)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        read_full_at(&*file, &mut page, 0)?;
        let len_bytes = file.len_bytes()?;
        let salt = SegmentHeader::parse(&page).map(|header| header.salt);
        Ok(salt.map(|salt| (Place::first(file, salt, first_sequence), len_bytes)))
    }

    fn path(&self, first_sequence: u64) -> PathBuf {
        Path::new(&self.dir).join(segment_name(first_sequence))
    }
}
