//! Which process has a spool open, without asking for the lock: asking takes it for a moment, in which a gateway
//! that starts would be turned away.

use std::os::linux::fs::MetadataExt;
use std::path::Path;

const LOCKS: &str = "/proc/locks";

pub(super) fn holder(lock: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(lock).ok()?;
    let device = metadata.st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    held(
        &std::fs::read_to_string(LOCKS).ok()?,
        major,
        minor,
        metadata.st_ino(),
    )
}

/// The process of the `FLOCK` line for this file: `1: FLOCK  ADVISORY  WRITE 708 08:01:1234 0 EOF`.
fn held(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let mut words = words.skip(2);
        let process = words.next()?.parse().ok()?;
        (words.next()? == file).then_some(process)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_file_names_its_process() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 08:01:78 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 14 08:01:77 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 15 08:01:77 0 EOF\n";
        assert_eq!(held(locks, 8, 1, 77), Some(15));
        assert_eq!(held(locks, 8, 1, 79), None);
        assert_eq!(held("no line of the kernel's\n\n", 8, 1, 77), None);
    }

    #[test]
    fn a_lock_of_this_process_is_seen_and_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        file.try_lock().unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(file);
        assert_eq!(holder(&path), None);
    }
}
