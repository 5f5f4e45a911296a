//! The gateway's disk: a small file system of its own, which can be full or read-only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Some more than the spool may have.
const SIZE: &str = "64m";
const FILLER: &str = "filler";
const CHUNK_BYTES: usize = 256 * 1024;

/// A tmpfs. It goes when this is dropped, and when this process dies.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    /// Unmounts when its stdin ends: `Drop` does not run on `kill -9`.
    watchdog: Child,
}

impl Disk {
    /// Why there can be none; `None` where there can.
    pub fn missing() -> Option<String> {
        let root = rustix::process::geteuid().is_root();
        (!root).then(|| "only root may mount a file system".to_owned())
    }

    pub fn mount(at: &Path) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "shopfloor-chaos"])
            .arg(at))?;
        let watchdog = Command::new("sh")
            .args(["-c", "cat >/dev/null; umount -l \"$1\"", "watchdog"])
            .arg(at)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            at: at.to_owned(),
            watchdog,
        })
    }

    /// Not a byte is left.
    pub fn fill(&self) -> io::Result<()> {
        let mut filler = File::create(self.filler())?;
        for chunk_bytes in [CHUNK_BYTES, 4096, 1] {
            let chunk = vec![0; chunk_bytes];
            loop {
                match filler.write_all(&chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }

    /// `ro` or `rw`. The kernel refuses `ro` while a file is open for writing.
    pub fn remount(&self, how: &str) -> io::Result<()> {
        let options = format!("remount,{how}");
        run(Command::new("mount").args(["-o", &options]).arg(&self.at))
    }

    /// What is opened by its path from here on is read-only; files that are open stay as they are.
    pub fn cover(&self) -> io::Result<()> {
        run(Command::new("mount").arg("--bind").arg(&self.at).arg(&self.at))?;
        run(Command::new("mount")
            .args(["-o", "remount,bind,ro"])
            .arg(&self.at))
    }

    pub fn uncover(&self) -> io::Result<()> {
        run(Command::new("umount").arg("-l").arg(&self.at))
    }

    fn filler(&self) -> PathBuf {
        self.at.join(FILLER)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        if let Err(error) = self.watchdog.wait() {
            eprintln!("{} may still be mounted: {error}", self.at.display());
        }
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_and_frees_refuses_writes_and_goes() {
        if let Some(why) = Disk::missing() {
            eprintln!("**** NOT RUN: {why} ****");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("disk");
        let disk = Disk::mount(&at).unwrap();
        let write = || fs::write(at.join("file"), b"bytes");

        disk.fill().unwrap();
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.free().unwrap();
        write().unwrap();

        let mut open = File::options().append(true).open(at.join("file")).unwrap();
        disk.cover().unwrap();
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        open.write_all(b"more").unwrap();
        disk.uncover().unwrap();
        write().unwrap();
        drop(open);

        disk.remount("ro").unwrap();
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        disk.remount("rw").unwrap();
        write().unwrap();
        drop(disk);
        assert!(!at.join("file").exists(), "it is still mounted");
    }
}
