//! The file behind a cursor: how far one sink has confirmed, kept over a crash.
//!
//! A cursor is a file of two slots that are written in turn, so that a torn write leaves the older one. It may be
//! behind after a crash (the sink then sees entries again), never ahead.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut};

use super::filesystem::{Filesystem, LogFile, read_full_at, write_all_at};
use super::mutex::lock;

const MAGIC: &[u8; 4] = b"CURS";
const SLOT_BYTES: usize = 24;
/// A page each.
const SLOT_AT: [u64; 2] = [0, 4096];
const PREFIX: &str = "cursor-";

#[derive(Debug)]
pub(super) struct CursorState {
    pub name: String,
    pub position: AtomicU64,
    pub saved: AtomicU64,
    file: Mutex<CursorFile>,
}

impl CursorState {
    fn new(name: &str, position: u64, file: CursorFile) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            position: AtomicU64::new(position),
            saved: AtomicU64::new(position),
            file: Mutex::new(file),
        })
    }

    /// Makes the position durable, if it moved.
    pub(super) fn save(&self, fs: &dyn Filesystem, dir: &Path) -> io::Result<()> {
        let position = self.position.load(Ordering::Acquire);
        if position != self.saved.load(Ordering::Acquire) {
            lock(&self.file).save(fs, dir, position)?;
            self.saved.store(position, Ordering::Release);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct CursorFile {
    path: PathBuf,
    /// Where a new file is written before it takes the name.
    new_path: PathBuf,
    /// `None` after a failed write or sync: nothing is known of its pages then, and a new file takes its place.
    file: Option<Arc<dyn LogFile>>,
    generation: u64,
}

impl CursorFile {
    fn named(dir: &Path, name: &str, file: Option<Arc<dyn LogFile>>, generation: u64) -> Self {
        Self {
            path: dir.join(format!("{PREFIX}{name}")),
            new_path: dir.join(format!("{PREFIX}{name}.tmp")),
            file,
            generation,
        }
    }

    fn save(&mut self, fs: &dyn Filesystem, dir: &Path, position: u64) -> io::Result<()> {
        self.generation += 1;
        let slot = encode(self.generation, position);
        let [even, odd] = SLOT_AT;
        let at = if self.generation.is_multiple_of(2) {
            even
        } else {
            odd
        };
        if let Some(file) = self.file.take() {
            write_all_at(&*file, &mut [IoSlice::new(&slot)], at)?;
            file.sync_data()?;
            self.file = Some(file);
            return Ok(());
        }
        let file = fs.create(&self.new_path)?;
        write_all_at(&*file, &mut [IoSlice::new(&slot)], at)?;
        file.sync_data()?;
        fs.rename(&self.new_path, &self.path)?;
        fs.sync_dir(dir)?;
        self.file = Some(file);
        Ok(())
    }
}

/// A new cursor at `position`, on disk when this returns.
pub(super) fn create(
    fs: &dyn Filesystem,
    dir: &Path,
    name: &str,
    position: u64,
) -> io::Result<Arc<CursorState>> {
    let mut file = CursorFile::named(dir, name, None, 0);
    file.save(fs, dir, position)?;
    Ok(CursorState::new(name, position, file))
}

/// Durable when this returns.
pub(super) fn remove(fs: &dyn Filesystem, dir: &Path, name: &str) -> io::Result<()> {
    fs.remove(&dir.join(format!("{PREFIX}{name}")))?;
    fs.sync_dir(dir)
}

/// The cursor of this file, if it is one. One that cannot be read begins again at `oldest`; the second value
/// is false then.
pub(super) fn recover(
    fs: &dyn Filesystem,
    dir: &Path,
    file_name: &str,
    oldest: u64,
) -> io::Result<Option<(Arc<CursorState>, bool)>> {
    let Some(name) = name_of(file_name) else {
        return Ok(None);
    };
    let newest = newest(&*fs.open(&dir.join(file_name))?)?;
    let (generation, position) = newest.unwrap_or((0, oldest));
    // What was read may stand in the page cache only, and count as clean after a failed sync: a new file is sure.
    let mut file = CursorFile::named(dir, name, None, generation);
    file.save(fs, dir, position)?;
    Ok(Some((CursorState::new(name, position, file), newest.is_some())))
}

/// The name and the position of the cursor of this file, if it is one; changes nothing. No position where neither slot
/// is whole.
pub(super) fn look<'a>(
    fs: &dyn Filesystem,
    dir: &Path,
    file_name: &'a str,
) -> io::Result<Option<(&'a str, Option<u64>)>> {
    let Some(name) = name_of(file_name) else {
        return Ok(None);
    };
    let newest = newest(&*fs.open_read(&dir.join(file_name))?)?;
    Ok(Some((name, newest.map(|(_, position)| position))))
}

fn name_of(file_name: &str) -> Option<&str> {
    let name = file_name.strip_prefix(PREFIX)?;
    (!name.ends_with(".tmp")).then_some(name)
}

/// Generation and position of the newest slot that is whole.
fn newest(file: &dyn LogFile) -> io::Result<Option<(u64, u64)>> {
    let mut newest = None;
    for at in SLOT_AT {
        let mut slot = [0; SLOT_BYTES];
        read_full_at(file, &mut slot, at)?;
        newest = newest.max(parse(&slot));
    }
    Ok(newest)
}

fn encode(generation: u64, position: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let mut rest = slot.as_mut_slice();
    rest.put_slice(MAGIC);
    rest.put_u64_le(generation);
    rest.put_u64_le(position);
    let (body, mut crc) = slot.split_at_mut(SLOT_BYTES - 4);
    crc.put_u32_le(crc32c::crc32c(body));
    slot
}

/// Generation and position.
fn parse(slot: &[u8]) -> Option<(u64, u64)> {
    let (body, mut crc) = slot.split_at_checked(SLOT_BYTES - 4)?;
    if crc.try_get_u32_le().ok()? != crc32c::crc32c(body) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    Some((rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?))
}
