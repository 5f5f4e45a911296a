//! A file system in memory that fails as real ones do.
//!
//! It keeps what a reader sees apart from what a power failure leaves. Between two syncs each 512-byte sector of each
//! write may or may not reach the disk, in any order; of the names, any number of the changes since the last directory
//! sync, in their order. At any call it can answer EIO, ENOSPC or EMFILE, do half of it, or end the process. After a failed
//! fdatasync it does as Linux does: the pages stay readable, count as clean, and are never written again.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::spool::filesystem::{Filesystem, Listed, LogFile};
use crate::spool::mutex::lock;

const SECTOR_BYTES: usize = 512;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Eio,
    Enospc,
    Emfile,
    /// A write or read does only a part; other calls are not touched.
    Short,
    /// A write does a part, a sync may or may not do its work; nothing answers any more until a restart.
    Death,
}

#[derive(Debug, Clone)]
pub(super) struct FakeFilesystem(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    next_inode: u64,
    random: StdRng,
    /// How many calls pass before each fault, counted from the one before it.
    faults: VecDeque<(u32, Fault)>,
    /// The process that may call.
    life: u64,
    dead: bool,
    locked: bool,
    capacity_bytes: u64,
    now_ms: u64,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Create(path, inode) => drop(names.insert(path.clone(), *inode)),
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(path) => drop(names.remove(path)),
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Inode {
    fn change(&mut self, change: Change) {
        match &change {
            Change::Write { offset, bytes } => write_at(&mut self.content, *offset, bytes),
            Change::Len(len) => self.content.resize(*len, 0),
        }
        self.changes.push(change);
    }

    /// Lets some of the unsynced sectors reach the disk, and forgets the others.
    fn settle(&mut self, random: &mut StdRng) {
        let kept = [0.0, 0.5, 0.95, 1.0][random.random_range(0..4)];
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Len(len) if random.random_bool(kept) => self.durable.resize(len, 0),
                Change::Len(_) => {}
                Change::Write { offset, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = (from + SECTOR_BYTES - (offset + from) % SECTOR_BYTES).min(bytes.len());
                        if random.random_bool(kept) {
                            write_at(&mut self.durable, offset + from, &bytes[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
    }
}

impl FakeFilesystem {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            next_inode: 0,
            random: StdRng::seed_from_u64(seed),
            faults: VecDeque::new(),
            life: 0,
            dead: false,
            locked: false,
            capacity_bytes: u64::MAX,
            now_ms: 1_000_000,
        })))
    }

    /// `calls` calls from now, or from the fault before it.
    pub(super) fn fault(&self, calls: u32, fault: Fault) {
        lock(&self.0).faults.push_back((calls, fault));
    }

    pub(super) fn clear_faults(&self) {
        lock(&self.0).faults.clear();
    }

    pub(super) fn is_dead(&self) -> bool {
        lock(&self.0).dead
    }

    pub(super) fn set_capacity_bytes(&self, capacity_bytes: u64) {
        lock(&self.0).capacity_bytes = capacity_bytes;
    }

    pub(super) fn pass_ms(&self, ms: u64) {
        lock(&self.0).now_ms += ms;
    }

    pub(super) fn go_back_ms(&self, ms: u64) {
        lock(&self.0).now_ms -= ms;
    }

    /// The process is gone; what it wrote is not.
    pub(super) fn kill(&self) {
        let mut world = lock(&self.0);
        world.life += 1;
        world.dead = false;
        world.locked = false;
        world.faults.clear();
    }

    /// The machine is gone, and with it some of what was not synced.
    pub(super) fn power_failure(&self) {
        self.kill();
        let world = &mut *lock(&self.0);
        let kept = world.random.random_range(0..=world.name_changes.len());
        for change in world.name_changes.drain(..).take(kept) {
            apply_name(&mut world.durable_names, &change);
        }
        world.names = world.durable_names.clone();
        for inode in world.inodes.values_mut() {
            inode.settle(&mut world.random);
            inode.content = inode.durable.clone();
        }
        let names = &world.names;
        world
            .inodes
            .retain(|inode, _| names.values().any(|named| named == inode));
    }

    /// Changes bytes of a file behind everybody's back, on disk and in the page cache.
    pub(super) fn rot(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let mut world = lock(&self.0);
        let inode = world.names[path];
        let inode = world.inodes.get_mut(&inode).unwrap();
        change(&mut inode.content);
        change(&mut inode.durable);
    }

    pub(super) fn names(&self) -> Vec<PathBuf> {
        lock(&self.0).names.keys().cloned().collect()
    }
}

impl World {
    /// Every call comes through here.
    fn enter(&mut self, life: u64) -> io::Result<Option<Fault>> {
        if self.dead || life != self.life {
            return Err(io::Error::other("the process is dead"));
        }
        match self.faults.front_mut() {
            Some((0, _)) => {}
            Some((calls, _)) => {
                *calls -= 1;
                return Ok(None);
            }
            None => return Ok(None),
        }
        match self.faults.pop_front().map(|(_, fault)| fault) {
            Some(Fault::Eio) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Enospc) => Err(io::Error::from_raw_os_error(28)),
            Some(Fault::Emfile) => Err(io::Error::from_raw_os_error(24)),
            Some(Fault::Death) => {
                self.dead = true;
                Ok(Some(Fault::Death))
            }
            other => Ok(other),
        }
    }

    /// For calls that are done whole or not at all.
    fn enter_whole(&mut self, life: u64) -> io::Result<()> {
        match self.enter(life)? {
            Some(Fault::Death) if self.random.random_bool(0.5) => {
                Err(io::Error::other("died before the call"))
            }
            _ => Ok(()),
        }
    }

    fn rename(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.content.len() as u64).sum()
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct Process {
    world: Arc<Mutex<World>>,
    life: u64,
}

impl FakeFilesystem {
    /// The file system as a process sees it that starts now.
    pub(super) fn process(&self) -> Arc<dyn Filesystem> {
        let life = lock(&self.0).life;
        Arc::new(Process {
            world: self.0.clone(),
            life,
        })
    }
}

impl Process {
    fn file(&self, inode: u64) -> Arc<dyn LogFile> {
        Arc::new(FakeFile {
            world: self.world.clone(),
            life: self.life,
            inode,
        })
    }
}

struct Unlock(Arc<Mutex<World>>, u64);

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut world = lock(&self.0);
        if world.life == self.1 {
            world.locked = false;
        }
    }
}

impl Filesystem for Process {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        lock(&self.world).enter_whole(self.life)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        if std::mem::replace(&mut world.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(self.world.clone(), self.life)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        let inside = world.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let listed = inside.map(|(path, inode)| Listed {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            len_bytes: world.inodes[inode].content.len() as u64,
        });
        Ok(listed.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        let inode = match world.names.get(path).copied() {
            Some(inode) => {
                world.inodes.get_mut(&inode).unwrap().change(Change::Len(0));
                inode
            }
            None => {
                world.next_inode += 1;
                let inode = world.next_inode;
                world.inodes.insert(inode, Inode::default());
                world.rename(NameChange::Create(path.to_owned(), inode));
                inode
            }
        };
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        world.find(path).map(|inode| self.file(inode))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        world.find(from)?;
        world.rename(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        world.find(path)?;
        world.rename(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let world = &mut *lock(&self.world);
        world.enter_whole(self.life)?;
        for change in world.name_changes.drain(..) {
            apply_name(&mut world.durable_names, &change);
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        Ok(world.capacity_bytes.saturating_sub(world.used_bytes()))
    }

    fn now_ms(&self) -> u64 {
        lock(&self.world).now_ms
    }
}

#[derive(Debug)]
struct FakeFile {
    world: Arc<Mutex<World>>,
    life: u64,
    inode: u64,
}

impl FakeFile {
    /// Refuses what would not fit the disk.
    fn grow(&self, world: &World, len: usize) -> io::Result<()> {
        let more = (len as u64).saturating_sub(world.inodes[&self.inode].content.len() as u64);
        if world.used_bytes().saturating_add(more) > world.capacity_bytes {
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(())
    }
}

impl LogFile for FakeFile {
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let world = &mut *lock(&self.world);
        let fault = world.enter(self.life)?;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        if fault.is_some() && !bytes.is_empty() {
            bytes.truncate(world.random.random_range(1..=bytes.len()));
        }
        self.grow(world, offset as usize + bytes.len())?;
        let written = bytes.len();
        world.inodes.get_mut(&self.inode).unwrap().change(Change::Write {
            offset: offset as usize,
            bytes,
        });
        if fault == Some(Fault::Death) {
            return Err(io::Error::other("died in a write"));
        }
        Ok(written)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = &mut *lock(&self.world);
        let fault = world.enter(self.life)?;
        let content = &world.inodes[&self.inode].content;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let mut read = rest.len().min(into.len());
        if fault == Some(Fault::Short) && read > 1 {
            read = world.random.random_range(1..read);
        }
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        let world = &mut *lock(&self.world);
        let entered = world.enter(self.life);
        let inode = world.inodes.get_mut(&self.inode).unwrap();
        match entered {
            Ok(None | Some(Fault::Short | Fault::Eio | Fault::Enospc | Fault::Emfile)) => {
                inode.changes.clear();
                inode.durable = inode.content.clone();
                Ok(())
            }
            Ok(Some(Fault::Death)) => {
                if world.random.random_bool(0.5) {
                    inode.changes.clear();
                    inode.durable = inode.content.clone();
                }
                Err(io::Error::other("died in a sync"))
            }
            Err(error) => {
                if !world.dead && self.life == world.life {
                    // Some pages made it, all of them are clean now.
                    inode.settle(&mut world.random);
                }
                Err(error)
            }
        }
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        self.grow(&world, len_bytes as usize)?;
        let inode = world.inodes.get_mut(&self.inode).unwrap();
        if inode.content.len() < len_bytes as usize {
            inode.change(Change::Len(len_bytes as usize));
        }
        Ok(())
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        world
            .inodes
            .get_mut(&self.inode)
            .unwrap()
            .change(Change::Len(len_bytes as usize));
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let mut world = lock(&self.world);
        world.enter_whole(self.life)?;
        Ok(world.inodes[&self.inode].content.len() as u64)
    }
}
