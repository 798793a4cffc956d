//! Compiles every file below `proto/` without an installed protoc.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Public APIs, described to clients by gRPC reflection.
const PUBLIC: &[&str] = &["quorate/v1", "etcd"];
/// Between masters only.
const INTERNAL: &[&str] = &["quorate/peer/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    generate(&root, PUBLIC, Some("public.bin"))?;
    generate(&root, INTERNAL, None)
}

fn generate(
    root: &Path,
    folders: &[&str],
    descriptors: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    let set = protox::compile(&files, [root])?;
    if let Some(name) = descriptors {
        use prost::Message as _;
        let out = PathBuf::from(std::env::var("OUT_DIR")?).join(name);
        std::fs::write(out, set.encode_to_vec())?;
    }
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
