//! The cluster in a directory, before a server runs on it: which programs, who may reach it, its first making.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Doing, PartError, succeeded};
use super::process::User;

pub(super) const PART: &str = "Postgres";
/// The cluster's superuser, and the role of every URL.
pub(super) const ROLE: &str = "shopfloor";
/// Debian's place; other systems have the programs on the path.
const DEBIAN_BIN: &str = "/usr/lib/postgresql/15/bin";

/// How a cluster is to run.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub dir: PathBuf,
    /// Loopback port; a free one where it is not given.
    pub port: Option<u16>,
    /// For tests: nothing is forced to disk (a crash of the server loses nothing, one of the machine may), and the directory is removed when the server or this process ends.
    pub temporary: bool,
}

pub(super) fn find_bin() -> Result<PathBuf, PartError> {
    let debian = PathBuf::from(DEBIAN_BIN);
    if debian.join("postgres").is_file() {
        return Ok(debian);
    }
    // `Command` looks a bare name up on the path.
    if Command::new("postgres").arg("--version").output().is_ok() {
        return Ok(PathBuf::new());
    }
    Err(PartError::NotInstalled {
        program: "Postgres 15".into(),
        remedy: format!(
            "`apt-get install postgresql-15`, or put its programs on PATH (looked in {DEBIAN_BIN})"
        ),
    })
}

/// Says which directory above `dir` keeps `user` from it, before Postgres says it less well.
pub(super) fn check_reach(dir: &Path, user: &User) -> Result<(), PartError> {
    for above in dir.ancestors() {
        let metadata = fs::metadata(above).doing(|| format!("look at {}", above.display()))?;
        let mode = metadata.mode();
        let may_pass = if metadata.uid() == user.uid {
            mode & 0o100 != 0
        } else if metadata.gid() == user.gid {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        };
        if !may_pass {
            return Err(PartError::OutOfReach {
                user: user.name.clone(),
                path: dir.to_owned(),
                remedy: format!("`chmod o+x {}`", above.display()),
            });
        }
    }
    Ok(())
}

/// Makes `<dir>/data` unless it is there: whole or not at all, so an interrupted run leaves nothing half made.
pub(super) fn make_cluster(
    bin: &Path,
    options: &PostgresOptions,
    user: Option<&User>,
) -> Result<(), PartError> {
    let data = options.dir.join("data");
    if data.join("PG_VERSION").is_file() {
        return Ok(());
    }
    let unfinished = options.dir.join("data.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).doing(|| format!("remove {}", unfinished.display()))?;
    }
    let mut initdb = Command::new(bin.join("initdb"));
    initdb
        .arg("-D")
        .arg(&unfinished)
        .args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"])
        .current_dir("/");
    if options.temporary {
        initdb.arg("--no-sync");
    }
    if let Some(user) = user {
        initdb.uid(user.uid).gid(user.gid);
    }
    let output = initdb.output().doing(|| "start initdb".into())?;
    succeeded(PART, "initdb", output)?;
    fs::rename(&unfinished, &data).doing(|| format!("name the new cluster {}", data.display()))
}
