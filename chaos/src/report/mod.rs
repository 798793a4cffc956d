//! What a run leaves: a page for people, JSON for programs, and what is needed to judge or to
//! repeat it.

mod page;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, MasterSighting};
use crate::faults::Struck;
use crate::history::Nanos;
use crate::meter::Bucket;
use crate::plan::Plan;
use crate::verdicts::{Outcome, Verdict, any_violation};

/// A run, judged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was to be broken.
    pub plan: Plan,
    /// Version of the harness, and of the binary it was built with.
    pub version: String,
    /// Names of the masters.
    pub masters: Vec<String>,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// How long it took.
    pub seconds: u64,
    /// What was broken.
    pub faults: Vec<Struck>,
    /// Throughput, latency, errors.
    pub buckets: Vec<Bucket>,
    /// Who led, and when.
    pub leaders: Vec<Reign>,
    /// Why the run could not be carried through.
    pub error: Option<String>,
    /// What became of the promises.
    pub verdicts: Vec<Verdict>,
}

/// One leader's term as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reign {
    /// The term.
    pub term: u64,
    /// Who led.
    pub leader: String,
    /// First seen.
    pub from: Nanos,
    /// Last seen.
    pub until: Nanos,
}

/// Terms, in order, from what masters said of themselves.
#[must_use]
pub fn leaders(sightings: &[MasterSighting]) -> Vec<Reign> {
    let mut reigns: Vec<Reign> = Vec::new();
    for seen in sightings.iter().filter(|sighting| sighting.leads) {
        let known = reigns.iter_mut().rev().take(8);
        let mut known = known.filter(|r| r.term == seen.term && r.leader == seen.master);
        if let Some(reign) = known.next() {
            reign.until = seen.at;
        } else {
            let (term, leader) = (seen.term, seen.master.clone());
            reigns.push(Reign { term, leader, from: seen.at, until: seen.at });
        }
    }
    reigns
}

impl Report {
    /// Was a promise broken, or the run not carried through?
    #[must_use]
    pub fn failed(&self) -> bool {
        self.error.is_some() || any_violation(&self.verdicts)
    }

    /// Writes everything into `folder`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, evidence: &Evidence) -> Result<()> {
        let write = |name: &str, text: Vec<u8>| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("report.json", serde_json::to_vec_pretty(self)?)?;
        write("report.html", page::page(self).into_bytes())?;
        write("evidence.json", serde_json::to_vec(evidence)?)?;
        let plan = serde_json::to_value(&self.plan)?;
        write("plan.yaml", serde_yaml_ng::to_string(&plan)?.into_bytes())
    }

    /// A few lines for the terminal.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = verdict_lines(&self.verdicts);
        let happened = self.faults.iter().filter(|fault| fault.skipped.is_none()).count();
        let answered: u32 = self.buckets.iter().map(|bucket| bucket.answered).sum();
        let unknown: u32 = self.buckets.iter().map(|bucket| bucket.unknown).sum();
        let refused: u32 = self.buckets.iter().map(|bucket| bucket.refused).sum();
        lines.push(format!(
            "{happened} faults in {} s; {answered} calls answered, {refused} refused, {unknown} \
             of unknown outcome; {} leaders seen; seed {}",
            self.seconds,
            self.leaders.len(),
            self.seed
        ));
        lines.extend(self.error.iter().map(|error| format!("not carried through: {error}")));
        lines.join("\n")
    }
}

/// One line per promise, more for what was broken.
#[must_use]
pub fn verdict_lines(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in verdicts {
        let word = match &verdict.outcome {
            Outcome::Kept => "kept       ",
            Outcome::Violated(_) => "VIOLATED   ",
            Outcome::NotDecided(_) => "not decided",
            Outcome::NotChecked => "not checked",
        };
        lines.push(format!("{word}  {} ({} checked)", verdict.name, verdict.checked));
        if let Outcome::Violated(texts) | Outcome::NotDecided(texts) = &verdict.outcome {
            lines.extend(texts.iter().map(|text| format!("             {text}")));
        }
    }
    lines
}

/// Copies the logs of all processes.
///
/// # Errors
/// When a file cannot be copied.
pub fn keep_logs(cluster: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(cluster)?.flatten() {
        let log = entry.path().join("log");
        if log.is_file() {
            let name = format!("{}.log", entry.file_name().to_string_lossy());
            std::fs::copy(&log, to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
