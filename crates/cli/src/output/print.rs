//! Standard output, and nothing else may write to it.

use std::io::{self, Write as _};

use serde::Serialize as _;
use serde_json::Value;

use crate::error::{CliError, Result};

/// Writes text as it is, at once.
///
/// # Errors
/// When the reader has gone.
pub fn text(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// Writes a line.
///
/// # Errors
/// When the reader has gone.
pub fn line(line: &str) -> Result<()> {
    bytes(format!("{line}\n").as_bytes())
}

/// Writes bytes as they are, at once.
///
/// # Errors
/// When the reader has gone.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// JSON with four spaces, as `kubectl` prints it.
///
/// # Errors
/// Never for values made of JSON.
pub fn to_json(value: &Value) -> Result<String> {
    let mut buffer = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut buffer, formatter))?;
    buffer.push(b'\n');
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// YAML.
///
/// # Errors
/// Never for values made of JSON.
pub fn to_yaml(value: &Value) -> Result<String> {
    serde_yaml_ng::to_string(value).map_err(|e| CliError::local(format!("cannot write YAML: {e}")))
}
