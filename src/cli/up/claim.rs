//! One `up` a directory, and ports that are free: said before anything is started.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Args, loopback};

/// With `--real` each of the two gateways and two APIs has an admin port.
const REAL_ADMIN_PORTS: u16 = 4;

/// Makes `dir` and locks it for as long as the file is held; the lock goes with the process, however that ends.
pub(super) fn dir(dir: &Path) -> Result<File> {
    let path = dir.join("up.lock");
    fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the directory {} (--dir)", dir.display()))?;
    let lock = File::create(&path).with_context(|| format!("cannot write {} (--dir)", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another `shopfloor up` runs in {}: stop it, or choose another directory with --dir and other ports",
            dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {} (--dir)", path.display()))
        }
    }
}

/// Says which port of ours is taken; all of them at once.
pub(super) fn check_ports(args: &Args) -> Result<()> {
    let admin_ports = if args.real { REAL_ADMIN_PORTS } else { 1 };
    let mut wanted = vec![("--mqtt-port", args.mqtt_port), ("--rest-port", args.rest_port)];
    for next in 0..admin_ports {
        let port = args
            .admin_port
            .checked_add(next)
            .context("--admin-port: choose one that leaves room for four")?;
        wanted.push(("--admin-port", port));
    }
    let taken: Vec<_> = wanted
        .iter()
        .filter_map(|(flag, port)| {
            let error = TcpListener::bind(loopback(*port)).err()?;
            Some(format!(
                "\n  {}: {error}; choose another with {flag}",
                loopback(*port)
            ))
        })
        .collect();
    if !taken.is_empty() {
        bail!(
            "not every port can be had (`ss -ltnp` shows who listens):{}",
            taken.concat()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_up_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("run");
        let first = dir(&place).unwrap();
        let second = dir(&place).unwrap_err().to_string();
        assert!(
            second.contains("another `shopfloor up`") && second.contains("--dir"),
            "{second}"
        );
        drop(first);
        dir(&place).unwrap();
    }
}
