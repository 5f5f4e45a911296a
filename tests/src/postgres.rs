//! One temporary cluster a test binary, one database a test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use shopfloor::parts::{Postgres, PostgresOptions};

/// The cluster that the tests of this binary share. It goes with the process.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(own)
}

/// A cluster for one test alone, which may pause and kill it.
pub fn own() -> Postgres {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let postgres = Postgres::start_with(PostgresOptions {
        dir: dir.path().to_owned(),
        port: None,
        temporary: true,
    })
    .unwrap_or_else(|error| panic!("{error}"));
    // The server removes it from here on, also when this process is killed.
    let _kept = dir.keep();
    postgres
}

/// The URL of a new, empty database in the shared cluster. `what` names it for whoever reads the server's log.
pub fn database(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("{what}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    shared()
        .create_database(&name)
        .unwrap_or_else(|error| panic!("{error}"));
    shared().url(&name)
}
