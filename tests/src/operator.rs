//! A person at a terminal: one command, ours or a third party's, what it said and how it ended.

use std::process::Command;

use serde_json::Value;

use crate::repository;

/// One command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `shopfloor` with these arguments to its end.
pub fn shopfloor(args: &[&str]) -> Ran {
    let mut command = Command::new(repository::binary());
    command.env_remove("SHOPFLOOR_REQUIRE_REAL").args(args);
    run(command)
}

/// Runs it to its end.
pub fn run(mut command: Command) -> Ran {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Ran {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("it prints UTF-8"),
    }
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The lines, each a JSON value.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }
}
