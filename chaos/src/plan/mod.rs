//! What is to be broken, in which order: by name, by seed, or by file.

mod fault;
mod random;
mod scenarios;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

pub use fault::{Abilities, Ability, Direction, Fault, From, Torn, Who};
pub use scenarios::SCENARIOS;

/// Faults that begin together, how long they last, and the quiet after them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// What is broken.
    pub faults: Vec<Fault>,
    /// Milliseconds until it is mended.
    #[serde(default = "default_hold")]
    pub hold_ms: u64,
    /// Milliseconds of quiet after that.
    #[serde(default = "default_rest")]
    pub rest_ms: u64,
}

impl Step {
    fn check(&self) -> Result<()> {
        ensure!(!self.faults.is_empty(), "steps: one has no faults");
        let replaced: Vec<_> = self.faults.iter().filter_map(Fault::replaces).collect();
        let one = replaced.iter().all(|who| !matches!(who, Who::Majority | Who::All));
        ensure!(
            replaced.len() <= 1 && one,
            "steps: one costs more than one master its disk or its vote at a time; no cluster is \
             made for that"
        );
        let flips = self.faults.iter().any(|fault| matches!(fault, Fault::FlipBit(_)));
        ensure!(
            !flips || self.faults.len() == 1,
            "steps: flip-bit goes alone: a flipped bit counts as the loss of a disk"
        );
        Ok(())
    }

    /// Has nobody a reason to want another leader? A follower may come and go: it asks before it
    /// stands for election. Two at once leave the leader without a majority.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let followers = self.faults.iter().filter(|fault| fault.hits_follower()).count();
        followers <= 1
            && self.faults.iter().all(|fault| fault.hits_follower() || fault.spares_masters())
    }
}

fn default_hold() -> u64 {
    1_500
}

fn default_rest() -> u64 {
    1_500
}

/// A whole schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    /// Feeds every choice that the plan leaves open, and the clients' dice.
    #[serde(default)]
    pub seed: u64,
    /// One after the other.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Reads a plan from a YAML file.
    ///
    /// # Errors
    /// When the file cannot be read, or says something else than a plan; names the field.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the plan {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the plan {}", path.display()))
    }

    /// The same from text.
    ///
    /// # Errors
    /// When it is not a plan.
    pub fn parse(text: &str) -> Result<Self> {
        // By way of JSON: YAML's own form of enums is a tag, which nobody expects.
        let value: serde_json::Value = serde_yaml_ng::from_str(text).context("not YAML")?;
        let plan: Self = serde_json::from_value(value)?;
        ensure!(!plan.steps.is_empty(), "steps: at least one is needed");
        plan.steps.iter().try_for_each(Step::check)?;
        Ok(plan)
    }

    /// A random schedule of `steps` steps. The same seed and abilities make the same schedule.
    #[must_use]
    pub fn random(seed: u64, steps: usize, abilities: &Abilities) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self { seed, steps: (0..steps).map(|_| random::step(&mut random, abilities)).collect() }
    }

    /// A schedule by name.
    ///
    /// # Errors
    /// When there is none of this name; lists all.
    pub fn scenario(name: &str, seed: u64) -> Result<Self> {
        let Some((_, _, steps)) = SCENARIOS.iter().find(|(known, _, _)| *known == name) else {
            let names: Vec<_> = SCENARIOS.iter().map(|(name, _, _)| *name).collect();
            bail!("there is no scenario {name:?}; there are: {}", names.join(", "));
        };
        Ok(Self { seed, ..Self::parse(&format!("steps:\n{steps}"))? })
    }

    /// Keeps what is possible.
    #[must_use]
    pub fn within(mut self, abilities: &Abilities) -> Self {
        let possible = |fault: &Fault| fault.needs().iter().all(|need| abilities.contains(need));
        for step in &mut self.steps {
            step.faults.retain(possible);
        }
        self.steps.retain(|step| !step.faults.is_empty());
        self
    }

    /// Everything that its faults need.
    #[must_use]
    pub fn needs(&self) -> Abilities {
        let faults = self.steps.iter().flat_map(|step| &step.faults);
        faults.flat_map(|fault| fault.needs()).copied().collect()
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
