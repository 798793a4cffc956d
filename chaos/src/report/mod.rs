//! What a run leaves: a page for people, JSON for programs, and what is needed to judge or to
//! repeat it.

mod page;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, MasterSighting};
use crate::faults::Struck;
use crate::history::Nanos;
use crate::meter::{Bucket, coarser};
use crate::plan::Plan;
use crate::target::Target;
use crate::verdicts::{Outcome, Verdict, any_violation};

/// Most pieces of time that a report shows.
const BUCKETS: usize = 4_000;
/// Sightings of masters that the next window is told of.
const REMEMBERED: usize = 200;

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
    /// Length of a bucket in milliseconds.
    pub bucket_ms: u64,
    /// Number of windows that were judged.
    pub windows: usize,
    /// Was it ended early, by a signal?
    pub interrupted: bool,
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

/// What the next window must know of this one to judge terms: when each leader was seen, and
/// what every master said last.
#[must_use]
pub fn remember(sightings: &[MasterSighting]) -> Vec<MasterSighting> {
    let mut last: BTreeMap<(&str, u64), &MasterSighting> = BTreeMap::new();
    for seen in sightings.iter().filter(|seen| seen.leads) {
        last.insert((&seen.master, seen.term), seen);
    }
    let newest: BTreeMap<&str, &MasterSighting> =
        sightings.iter().map(|seen| (seen.master.as_str(), seen)).collect();
    let mut all: Vec<MasterSighting> =
        last.into_values().chain(newest.into_values()).cloned().collect();
    all.sort_by_key(|seen| seen.at);
    all.split_off(all.len().saturating_sub(REMEMBERED))
}

impl Report {
    /// Of a run that has just begun.
    #[must_use]
    pub fn new(plan: Plan, target: &Target) -> Self {
        Self {
            seed: plan.seed,
            plan,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            masters: target.masters(),
            nodes: target.nodes.clone(),
            seconds: 0,
            faults: Vec::new(),
            buckets: Vec::new(),
            bucket_ms: 0,
            windows: 0,
            interrupted: false,
            leaders: Vec::new(),
            error: None,
            verdicts: Vec::new(),
        }
    }

    /// Adds what was judged in one window.
    pub fn add(&mut self, window: usize, verdicts: Vec<Verdict>, error: Option<anyhow::Error>) {
        let several = self.plan.steps.len() > 1 && window > 0;
        self.windows = window + 1;
        if self.verdicts.is_empty() {
            self.verdicts = verdicts;
        } else {
            for (sum, verdict) in self.verdicts.iter_mut().zip(verdicts) {
                sum.add(verdict, window + 1);
            }
        }
        if let Some(error) = error {
            let text = format!("{error:#}");
            let text = if several { format!("window {}: {text}", window + 1) } else { text };
            self.error = Some(match self.error.take() {
                Some(earlier) => format!("{earlier}\n{text}"),
                None => text,
            });
        }
    }

    /// Throughput so far, in as many pieces as a page can show.
    pub fn set_buckets(&mut self, buckets: Vec<Bucket>) {
        (self.buckets, self.bucket_ms) = coarser(&buckets, BUCKETS);
    }

    /// How things stand after a window, in one line.
    #[must_use]
    pub fn line(&self, window: usize) -> String {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.verdicts.iter().filter(|verdict| wanted(&verdict.outcome)).count()
        };
        let checked: usize = self.verdicts.iter().map(|verdict| verdict.checked).sum();
        format!(
            "window {} judged: so far {} faults, {} promises kept, {} VIOLATED, {} not decided; \
             {checked} things checked{}",
            window + 1,
            self.faults.iter().filter(|fault| fault.skipped.is_none()).count(),
            count(|outcome| matches!(outcome, Outcome::Kept)),
            count(|outcome| matches!(outcome, Outcome::Violated(_))),
            count(|outcome| matches!(outcome, Outcome::NotDecided(_))),
            if self.error.is_some() { "; NOT CARRIED THROUGH" } else { "" },
        )
    }

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
        write("report.json", serde_json::to_vec(self)?)?;
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
             of unknown outcome; {} leaders seen; seed {}{}",
            self.seconds,
            self.leaders.len(),
            self.seed,
            if self.interrupted { "; interrupted" } else { "" }
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
        lines.push(format!("{word}  {} ({})", verdict.name, verdict.extent()));
        if let Outcome::Violated(texts) | Outcome::NotDecided(texts) = &verdict.outcome {
            lines.extend(texts.iter().map(|text| format!("             {text}")));
        }
    }
    lines
}

/// Empties the logs of all processes, which append to them.
///
/// # Errors
/// When a file cannot be changed.
pub fn empty_logs(cluster: &Path) -> Result<()> {
    for entry in std::fs::read_dir(cluster)?.flatten() {
        let log = entry.path().join("log");
        if log.is_file() {
            std::fs::OpenOptions::new().write(true).open(&log)?.set_len(0)?;
        }
    }
    Ok(())
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
