//! Users and their password hashes: one `name:hash` a line, argon2id in PHC form; `#` begins a comment line.
//!
//! `shopfloor passwd` writes the file, the front reads it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};

const MAX_NAME_BYTES: usize = 256;
/// A hash that asks for more could stop the gateway: 256 MiB, 16 passes, 16 lanes.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// Hashes by user name.
#[derive(Clone, Default)]
pub(crate) struct Users(HashMap<String, Arc<str>>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("count", &self.0.len())
            .finish_non_exhaustive()
    }
}

impl Users {
    pub(crate) fn hash(&self, name: &str) -> Option<&Arc<str>> {
        self.0.get(name)
    }

    /// Somebody's hash, to do the same work with for an unknown user.
    pub(crate) fn any_hash(&self) -> Option<&Arc<str>> {
        self.0.values().next()
    }
}

/// Wrong lines that are named; a file of something else has as many as it has lines.
const MAX_WRONG_LINES: usize = 20;

/// Reads the file. Each error names its line and never a hash.
pub(crate) fn read(path: &Path) -> Result<Users, Vec<String>> {
    let text = fs::read_to_string(path).map_err(|error| {
        vec![format!(
            "the password file {} cannot be read: {error}",
            path.display()
        )]
    })?;
    parse(&text).map_err(|wrong| {
        let named = wrong.into_iter().take(MAX_WRONG_LINES);
        named
            .map(|(number, why)| format!("{}:{number}: {why}", path.display()))
            .collect()
    })
}

/// Every wrong line by its number.
pub(crate) fn parse(text: &str) -> Result<Users, Vec<(usize, String)>> {
    let (mut users, mut wrong) = (Users::default(), Vec::new());
    for (number, line) in entries(text) {
        match entry(line) {
            Ok((name, _)) if users.0.contains_key(name) => {
                wrong.push((number, "names a user for the second time".to_owned()));
            }
            Ok((name, hash)) => drop(users.0.insert(name.to_owned(), hash.into())),
            Err(why) => wrong.push((number, why)),
        }
    }
    if wrong.is_empty() { Ok(users) } else { Err(wrong) }
}

fn entry(line: &str) -> Result<(&str, &str), String> {
    let (name, hash) = line.split_once(':').ok_or("is no name:hash")?;
    check_name(name).map_err(|why| why.to_string())?;
    check_hash(hash)?;
    Ok((name, hash))
}

fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn check_hash(hash: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(hash).map_err(|_| "has no password hash in PHC form")?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err("has a hash that is not argon2id");
    }
    let params = Params::try_from(&hash).map_err(|_| "has a hash with invalid parameters")?;
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err("has a hash that costs more than 256 MiB, 16 passes or 16 lanes");
    }
    Ok(())
}

/// Takes tens of milliseconds and as many megabytes: never on a task that serves connections.
pub(crate) fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Why a password file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    #[error("{0:?} is no user name: use 1 to 256 bytes without ':', '#' at the start, and line breaks")]
    Name(String),
    #[error("the password is empty")]
    NoPassword,
    #[error("there is no user {0:?} in the file")]
    Unknown(String),
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    #[error("the password file cannot be written")]
    Io(#[from] io::Error),
}

fn check_name(name: &str) -> Result<(), PasswordFileError> {
    let valid = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with('#')
        && !name.contains(|c: char| c == ':' || c.is_control());
    valid
        .then_some(())
        .ok_or_else(|| PasswordFileError::Name(name.to_owned()))
}

/// Sets a user's password, in a new file where there is none. True where the user is new.
///
/// # Errors
/// The file stays as it was.
pub fn set(path: &Path, name: &str, password: &[u8]) -> Result<bool, PasswordFileError> {
    check_name(name)?;
    if password.is_empty() {
        return Err(PasswordFileError::NoPassword);
    }
    let hash = Argon2::default()
        .hash_password(password)
        .map_err(|error| PasswordFileError::Hash(error.to_string()))?;
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let (mut text, was_there) = without(&old, name);
    text.push_str(&format!("{name}:{hash}\n"));
    replace(path, &text)?;
    Ok(!was_there)
}

/// Removes a user.
///
/// # Errors
/// The file stays as it was.
pub fn remove(path: &Path, name: &str) -> Result<(), PasswordFileError> {
    let (text, was_there) = without(&fs::read_to_string(path)?, name);
    if !was_there {
        return Err(PasswordFileError::Unknown(name.to_owned()));
    }
    replace(path, &text)?;
    Ok(())
}

/// All other lines, comments too, and whether the user was among them.
fn without(text: &str, name: &str) -> (String, bool) {
    let is_it = |line: &&str| line.split_once(':').is_some_and(|(other, _)| other == name);
    let kept = text.lines().filter(|line| !is_it(line));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    (kept, text.lines().any(|line| is_it(&line)))
}

/// Whoever reads the file finds the old one or the new one, whole, under the same owner: root may change the file of the
/// gateway's user, who is to read it still.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_absent| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let old = fs::metadata(&path).ok();
    let mode = old.as_ref().map_or(0o600, |old| old.permissions().mode());
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o777)
            .open(&new)?;
        if let Some(old) = &old {
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if written.is_err() {
        let _absent = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_was_set_has_that_password_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        assert!(set(&path, "press-1", b"geheim").unwrap());
        assert!(set(&path, "mill", b"anders").unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("$argon2id$") && !text.contains("geheim"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let users = read(&path).unwrap();
        assert!(verify(users.hash("press-1").unwrap(), b"geheim"));
        assert!(!verify(users.hash("press-1").unwrap(), b"geheim "));
        assert!(!verify(users.hash("mill").unwrap(), b"geheim"));
        assert!(!set(&path, "press-1", b"neu").unwrap());
        let users = read(&path).unwrap();
        assert!(verify(users.hash("press-1").unwrap(), b"neu") && users.0.len() == 2);
        remove(&path, "mill").unwrap();
        assert!(read(&path).unwrap().hash("mill").is_none());
        assert!(matches!(
            remove(&path, "mill"),
            Err(PasswordFileError::Unknown(_))
        ));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_file_of_another_user_stays_theirs() {
        const SERVICE: u32 = 12_345;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        set(&path, "press-1", b"geheim").unwrap();
        // Only root can give a file away, and so meet this.
        if std::os::unix::fs::chown(&path, Some(SERVICE), Some(SERVICE)).is_err() {
            return;
        }
        set(&path, "mill", b"anders").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (SERVICE, SERVICE));
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        for name in ["", "a:b", "a\nb", "#a", &"x".repeat(300)] {
            assert!(
                matches!(set(&path, name, b"x"), Err(PasswordFileError::Name(_))),
                "{name}"
            );
        }
        assert!(matches!(set(&path, "a", b""), Err(PasswordFileError::NoPassword)));
        assert!(!path.exists());
    }

    #[test]
    fn a_line_that_is_wrong_is_named_without_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        for line in [
            "nothing",
            "a:plaintext",
            "a:$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$ajA1Xc0J0mqPCZzUjEwUx24vlo0vLnKc",
            "a:$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$ajA1Xc0J0mqPCZzUjEwUx24vlo0vLnKc",
        ] {
            fs::write(&path, format!("# users\n\n{line}\n")).unwrap();
            let why = read(&path).unwrap_err().concat();
            assert!(why.contains("passwords:3: "), "{why}");
            assert!(!why.contains("ajA1") && !why.contains("plaintext"), "{why}");
        }
    }

    #[test]
    fn every_wrong_line_is_named_but_not_endlessly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        fs::write(&path, "nothing\n# fine\na:b\n").unwrap();
        let wrong = read(&path).unwrap_err();
        assert!(
            wrong.len() == 2 && wrong[0].contains(":1: ") && wrong[1].contains(":3: "),
            "{wrong:?}"
        );
        fs::write(&path, "nothing\n".repeat(1_000)).unwrap();
        assert_eq!(read(&path).unwrap_err().len(), MAX_WRONG_LINES);
    }
}
