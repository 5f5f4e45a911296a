//! `shopfloor passwd`: users of an MQTT password file.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use shopfloor_broker::password_file;

/// A longer one is a mistake.
const MAX_PASSWORD_BYTES: u64 = 4096;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file that `mqtt.auth.password_file` names; made where there is none. A running gateway reads it again by
    /// itself.
    file: PathBuf,
    user: String,
    /// Remove the user.
    #[arg(long)]
    delete: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let Args { file, user, delete } = args;
    let in_file = || format!("in {}", file.display());
    if *delete {
        password_file::remove(file, user).with_context(in_file)?;
        eprintln!("removed {user:?}");
        return Ok(ExitCode::SUCCESS);
    }
    let password = read_password()?;
    let is_new = password_file::set(file, user, password.as_bytes()).with_context(in_file)?;
    let done = if is_new { "added" } else { "changed" };
    eprintln!("{done} {user:?}");
    Ok(ExitCode::SUCCESS)
}

/// Twice from a terminal, without an echo; else the first line of standard input. Never an argument: those are seen
/// by everybody on the machine.
fn read_password() -> Result<String> {
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").context("cannot read from the terminal")?;
        if first != rpassword::prompt_password("Again: ").context("cannot read from the terminal")? {
            bail!("the two differ");
        }
        return Ok(first);
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD_BYTES)
        .read_to_string(&mut text)
        .context("cannot read the password from standard input")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
