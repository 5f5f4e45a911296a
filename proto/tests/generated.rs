//! The checked-in code is what the `.proto` file says.

use std::path::Path;

#[test]
fn the_generated_messages_are_those_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("a temporary directory");
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(fresh.path())
        .compile_protos(&[root.join("shopfloor/v1/telemetry.proto")], &[root])
        .expect("protoc reads the messages (Debian: protobuf-compiler)");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a generated file");
    assert_eq!(
        read(&fresh.path().join("shopfloor.v1.rs")),
        read(&root.join("src/gen/shopfloor.v1.rs")),
        "run `cargo run -p shopfloor-proto --example generate`"
    );
}
