//! `-f`: files, folders and standard input, each with any number of documents.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use quorate_objects::Kind;
use quorate_objects::manifest;
use serde_json::{Value, json};

use crate::error::{CliError, Result};

const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One object to work on, and where it comes from.
#[derive(Clone, Debug)]
pub struct Item {
    /// `web.yaml: document 2 (line 14)`
    pub origin: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// The object, with its namespace.
    pub value: Value,
}

/// What `-f` found: the good documents in order, and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Items {
    /// Documents that can be worked on.
    pub items: Vec<Item>,
    /// One message per wrong document.
    pub problems: Vec<String>,
}

/// Reads everything. A document that is wrong does not stop the others.
///
/// # Errors
/// When a file cannot be read, or there is no document at all.
pub fn read(files: &[PathBuf], recursive: bool, namespace: Option<&str>) -> Result<Items> {
    let mut found = Items::default();
    for file in files {
        for (name, text) in texts(file, recursive)? {
            parse(&name, &text, namespace, &mut found);
        }
    }
    if found.items.is_empty() && found.problems.is_empty() {
        return Err(CliError::local("no objects passed"));
    }
    Ok(found)
}

fn texts(path: &Path, recursive: bool) -> Result<Vec<(String, String)>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| CliError::local(format!("cannot read standard input: {e}")))?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let shown = path.display().to_string();
    if !path.exists() {
        return Err(CliError::local(format!("the path {shown:?} does not exist")));
    }
    if !path.is_dir() {
        let text = fs::read_to_string(path)
            .map_err(|e| CliError::local(format!("cannot read {shown}: {e}")))?;
        return Ok(vec![(shown, text)]);
    }
    let mut texts_found = Vec::new();
    let entries =
        fs::read_dir(path).map_err(|e| CliError::local(format!("cannot read {shown}: {e}")))?;
    let mut entries: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    entries.sort();
    for entry in entries {
        let manifest = entry.extension().is_some_and(|e| ENDINGS.iter().any(|end| e == *end));
        if (entry.is_file() && manifest) || (recursive && entry.is_dir()) {
            texts_found.extend(texts(&entry, recursive)?);
        }
    }
    if texts_found.is_empty() && !recursive {
        return Err(CliError::local(format!(
            "no files with the endings .yaml, .yml or .json in {shown}"
        )));
    }
    Ok(texts_found)
}

fn parse(file: &str, text: &str, namespace: Option<&str>, found: &mut Items) {
    for (document, line, part) in split(text) {
        match manifest::parse(&part) {
            Ok(documents) => {
                for one in documents {
                    let origin = format!("{file}: document {document} (line {line})");
                    match placed(one.kind, one.value, namespace) {
                        Ok(value) => found.items.push(Item { origin, kind: one.kind, value }),
                        Err(problem) => found.problems.push(format!("error: {origin}: {problem}")),
                    }
                }
            }
            Err(errors) => found.problems.extend(errors.into_iter().map(|e| {
                let line = line + e.line.saturating_sub(1);
                format!("error: {file}: document {document} (line {line}): {}", e.problem)
            })),
        }
    }
}

/// Cuts a text at its `---` lines: number and first line of each document, both from 1.
fn split(text: &str) -> Vec<(usize, usize, String)> {
    let mut documents = Vec::new();
    let mut part = String::new();
    let mut start = 1;
    let separates = |line: &str| {
        line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '#']))
    };
    let mut add = |start: usize, part: &str| {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if !part.lines().all(blank) {
            documents.push((documents.len() + 1, start, part.to_owned()));
        }
    };
    for (number, line) in text.lines().enumerate() {
        if separates(line) {
            add(start, &part);
            // What follows the dashes on the same line still belongs to the new document.
            part = format!("{}\n", line.trim_start_matches('-'));
            start = number + 1;
            if line.trim_end() == "---" {
                part.clear();
                start = number + 2;
            }
            continue;
        }
        part.push_str(line);
        part.push('\n');
    }
    add(start, &part);
    documents
}

/// Puts an object into its namespace: its own, else the flag's, else `default`.
fn placed(kind: &Kind, mut value: Value, flag: Option<&str>) -> Result<Value, String> {
    if !kind.namespaced {
        return Ok(value);
    }
    let own = crate::json::namespace(&value);
    match (own.is_empty(), flag) {
        (false, Some(flag)) if own != flag => Err(format!(
            "the namespace from the provided object {own:?} does not match the namespace \
             {flag:?}. You must pass '--namespace={own}' to perform this operation."
        )),
        (false, _) => Ok(value),
        (true, flag) => {
            value["metadata"]["namespace"] = json!(flag.unwrap_or("default"));
            Ok(value)
        }
    }
}

#[cfg(test)]
#[path = "manifests_test.rs"]
mod tests;
