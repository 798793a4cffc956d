//! Reads from the logs of masters which decisions of leader work had an effect.

use std::path::Path;

use crate::evidence::FencedWrite;

/// What masters must be told so that they write it: the value of `QUORATE_LOG`.
pub const LOG: &str = "info,quorate::audit=off,openraft=error,h2=warn,hyper=warn,tower=warn,\
                       quorate_raftstore::fence=debug";

const TARGET: &str = "quorate_raftstore::fence:";

/// All that the logs in the cluster's folder tell. A master whose log cannot be read tells
/// nothing.
#[must_use]
pub fn read(folder: &Path) -> Vec<FencedWrite> {
    let of = |master: String| {
        let log = std::fs::read(folder.join(&master).join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        text.lines().filter_map(|line| parse(&master, line)).collect::<Vec<_>>()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.flat_map(of).collect()
}

fn parse(master: &str, line: &str) -> Option<FencedWrite> {
    let (_, fields) = line.split_once(TARGET)?;
    let field = |name: &str| {
        let mut fields = fields.split_whitespace().filter_map(|field| field.split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    Some(FencedWrite {
        master: master.to_owned(),
        decided_in: field("decided_in")?.parse().ok()?,
        committed_in: field("committed_in")?.parse().ok()?,
        index: field("index")?.parse().ok()?,
        effective: field("effective")?.parse().ok()?,
    })
}

#[cfg(test)]
#[path = "fences_test.rs"]
mod tests;
