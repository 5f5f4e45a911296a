//! Where things are that no crate can give: the binary, HAProxy's file, the Python clients.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the repository")
        .to_owned()
}

/// The folder that `make kafka` fills.
pub fn kafka_jars() -> PathBuf {
    root().join(".run/kafka/lib")
}

/// The one configuration of HAProxy.
pub fn haproxy_config() -> PathBuf {
    root().join("haproxy/haproxy.cfg")
}

/// The `shopfloor` binary of this build: beside a binary, one folder above a test.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("this program's own path");
    let mut folder = own.parent().expect("target/<profile>, or deps in it");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("target/<profile>");
    }
    let binary = folder.join("shopfloor");
    assert!(
        binary.is_file(),
        "{} is not built: run `cargo build --workspace --bins`, as `make test` does",
        binary.display()
    );
    binary
}

/// The interpreter that has kafka-python 2.0.2 and paho-mqtt.
pub fn python() -> PathBuf {
    let python = root().join(".run/venv/bin/python");
    assert!(
        python.is_file(),
        "{} is missing: run `scripts/setup.sh test`, as `make test` does",
        python.display()
    );
    python
}

/// The program that tests the API against its OpenAPI document.
pub fn schemathesis() -> PathBuf {
    let program = root().join(".run/schemathesis/bin/schemathesis");
    assert!(
        program.is_file(),
        "{} is missing: run `scripts/setup.sh test`, as `make test` does",
        program.display()
    );
    program
}

/// A script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Whether a part that cannot be had is a failure (`SHOPFLOOR_REQUIRE_REAL=1`, set by CI).
pub fn require_real() -> bool {
    std::env::var_os("SHOPFLOOR_REQUIRE_REAL").is_some_and(|value| value == "1")
}
