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
    generate(&root, INTERNAL, None)?;
    describe(&root, "kubernetes")
}

/// Writes the descriptors of a folder whose messages need no code, only their field numbers.
fn describe(root: &Path, folder: &str) -> Result<(), Box<dyn Error>> {
    use prost::Message as _;
    let set = protox::compile(proto_files(&root.join(folder))?, [root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join(format!("{folder}.bin"));
    Ok(std::fs::write(out, set.encode_to_vec())?)
}

fn proto_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut files: Vec<PathBuf> = entries?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

fn generate(
    root: &Path,
    folders: &[&str],
    descriptors: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders {
        files.extend(proto_files(&root.join(folder))?);
    }
    let set = protox::compile(&files, [root])?;
    if let Some(name) = descriptors {
        use prost::Message as _;
        let out = PathBuf::from(std::env::var("OUT_DIR")?).join(name);
        std::fs::write(out, set.encode_to_vec())?;
    }
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
