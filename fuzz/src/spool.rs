//! The spool's files, damaged in any way between two runs.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shopfloor_bridge::spool::{Entry, ReadError, Spool, SpoolConfig};
use tempfile::TempDir;

const GATEWAY: &str = "gateway-1";
const COMMITS: usize = 4;
const MAX_DAMAGES: usize = 16;

/// Four bytes are one damage: which file, where, and what. Whatever is read afterwards is what was stored there; all
/// else is reported as lost, and new entries are taken.
pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = memory_dir();
    runtime.block_on(async {
        let stored = fill(dir.path()).await;
        for damage in data.chunks_exact(4).take(MAX_DAMAGES) {
            apply([damage[0], damage[1], damage[2], damage[3]], dir.path());
        }
        let Ok(spool) = Spool::open(dir.path(), GATEWAY, config()) else {
            return;
        };
        check(&spool, &stored).await;
        // A gateway that has lost entries goes on.
        append(&spool, &[entry(99)]).await;
        spool.close().await.unwrap();
    });
}

/// Two segments.
fn config() -> SpoolConfig {
    SpoolConfig {
        max_bytes: 1 << 20,
        min_free_disk_bytes: 0,
        segment_max_bytes: 8 * 1024,
        queue_max_bytes: 1 << 20,
        hot_max_bytes: 0,
        commit_max_bytes: 2 * 1024,
        ..SpoolConfig::default()
    }
}

/// fdatasync costs nothing there.
fn memory_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    dir.unwrap()
}

fn entry(number: u8) -> Entry {
    Entry {
        meta: Bytes::from(vec![number; 30]),
        payload: Bytes::from(vec![!number; 40 * (1 + usize::from(number) % 9)]),
    }
}

async fn fill(dir: &Path) -> Vec<Entry> {
    let spool = Spool::open(dir, GATEWAY, config()).unwrap();
    // Nothing is removed while nobody has read it.
    let _cursor = spool.cursor("sink").unwrap();
    let entries: Vec<_> = (0..20).map(entry).collect();
    for commit in entries.chunks(entries.len() / COMMITS) {
        append(&spool, commit).await;
    }
    spool.close().await.unwrap();
    entries
}

async fn append(spool: &Spool, entries: &[Entry]) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    spool
        .append(entries.to_vec(), done)
        .unwrap_or_else(|refused| panic!("refused: {}", refused.kind()));
    receiver.await.unwrap().unwrap();
}

fn apply([which, high, low, what]: [u8; 4], dir: &Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("lock"))
        .collect();
    files.sort();
    let Some(file) = files.get(usize::from(which >> 2) % files.len().max(1)) else {
        return;
    };
    let mut bytes = fs::read(file).unwrap();
    let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len().max(1);
    match which & 3 {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= what;
            }
        }
        2 => bytes.truncate(at),
        _ if what == 0 => return fs::remove_file(file).unwrap(),
        // As a disk that wrote nothing, or something else.
        _ => {
            let end = (at + usize::from(what)).min(bytes.len());
            bytes[at..end].fill(what & 1);
        }
    }
    fs::write(file, bytes).unwrap();
}

async fn check(spool: &Spool, stored: &[Entry]) {
    let mut reader = spool.reader_at(1);
    while reader.position() < reader.end_sequence() {
        let before = reader.position();
        match reader.next(3, 1000).await {
            Ok(read) => {
                for record in read {
                    let index = usize::try_from(record.sequence).unwrap() - 1;
                    let entry = Entry {
                        meta: record.meta,
                        payload: record.payload,
                    };
                    assert_eq!(Some(&entry), stored.get(index), "sequence {}", record.sequence);
                }
            }
            Err(ReadError::Lost { sequences, .. }) => assert!(sequences.contains(&before)),
            Err(error) => panic!("{error}"),
        }
        assert!(reader.position() > before, "the reader stands still");
    }
}
