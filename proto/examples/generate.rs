//! Writes `src/gen/` from `shopfloor/v1/telemetry.proto`; needs `protoc`.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out_dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| root.join("src/gen"), PathBuf::from);
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(out_dir)
        .compile_protos(&[root.join("shopfloor/v1/telemetry.proto")], &[root])?;
    Ok(())
}
