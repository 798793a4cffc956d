//! What is to be broken, in which order: by name, by seed, or by file.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Whom a fault hits. Which process that is, is decided when it strikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The master that leads.
    Leader,
    /// One that does not.
    Follower,
    /// Any master.
    Any,
    /// So many that the rest is no majority.
    Majority,
    /// All masters.
    All,
    /// This process: a master or a node.
    #[serde(untagged)]
    Named(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Follower => f.write_str("a follower"),
            Self::Any => f.write_str("a master"),
            Self::Majority => f.write_str("a majority of the masters"),
            Self::All => f.write_str("all masters"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// From whom somebody is separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// From the other masters only; clients and nodes still reach it.
    Masters,
    /// From clients and nodes only.
    Clients,
    /// From everybody, as if the host's cable were pulled.
    Everybody,
}

/// Which direction is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Nothing gets through.
    #[default]
    Both,
    /// It hears nobody, and is heard.
    In,
    /// It is heard by nobody, and hears.
    Out,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL; started again when the fault is over.
    Kill(Who),
    /// SIGTERM; started again when the fault is over.
    Terminate(Who),
    /// SIGSTOP, and SIGCONT when the fault is over.
    Pause(Who),
    /// Leadership is handed over by the API.
    Transfer,
    /// A network that drops everything.
    Cut {
        /// Who is cut off.
        who: Who,
        /// From whom.
        from: From,
        /// Which way.
        #[serde(default)]
        direction: Direction,
    },
    /// A network in which two masters do not hear each other, and the third hears both.
    Bridge,
    /// A slow or lossy network between one master and everybody.
    #[serde(rename_all = "kebab-case")]
    Slow {
        /// Who.
        who: Who,
        /// Milliseconds each way.
        delay_ms: u64,
        /// Share of what is lost, 0 to 1, and comes when TCP repeats it.
        #[serde(default)]
        loss: f64,
    },
    /// SIGKILL of an agent; its containers run on.
    KillAgent,
    /// An agent and its containers, as by a power cut.
    KillNode,
    /// A node that reaches no master; its pods run on.
    CutNode,
}

impl Fault {
    /// Do masters alone suffer?
    #[must_use]
    pub fn spares_nodes(&self) -> bool {
        match self {
            Self::Kill(who) | Self::Terminate(who) | Self::Pause(who) => {
                !matches!(who, Who::Named(name) if !name.starts_with('m'))
            }
            Self::Transfer | Self::Cut { .. } | Self::Bridge | Self::Slow { .. } => true,
            Self::KillAgent | Self::KillNode | Self::CutNode => false,
        }
    }

    /// Does it need the proxy between the processes?
    #[must_use]
    pub fn needs_links(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Bridge | Self::Slow { .. } | Self::CutNode)
    }

    /// Does it need a node?
    #[must_use]
    pub fn needs_nodes(&self) -> bool {
        matches!(self, Self::KillAgent | Self::KillNode | Self::CutNode)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(who) => write!(f, "kill {who}"),
            Self::Terminate(who) => write!(f, "terminate {who}"),
            Self::Pause(who) => write!(f, "pause {who}"),
            Self::Transfer => write!(f, "transfer the leadership"),
            Self::Cut { who, from, direction } => {
                let from = match from {
                    From::Masters => "the other masters",
                    From::Clients => "clients and nodes",
                    From::Everybody => "everybody",
                };
                let way = match direction {
                    Direction::Both => "",
                    Direction::In => " (hears nothing)",
                    Direction::Out => " (is not heard)",
                };
                write!(f, "cut {who} off from {from}{way}")
            }
            Self::Bridge => write!(f, "cut two masters apart that a third still reaches"),
            Self::Slow { who, delay_ms, loss } => {
                write!(f, "{delay_ms} ms and {:.0} % loss around {who}", loss * 100.0)
            }
            Self::KillAgent => write!(f, "kill an agent"),
            Self::KillNode => write!(f, "kill a node with its containers"),
            Self::CutNode => write!(f, "cut a node off from all masters"),
        }
    }
}

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

/// What a random schedule may use.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Is there a proxy between the processes?
    pub links: bool,
    /// Are there nodes?
    pub nodes: bool,
    /// May processes be killed?
    pub processes: bool,
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
        ensure!(plan.steps.iter().all(|step| !step.faults.is_empty()), "steps: one has no faults");
        Ok(plan)
    }

    /// A random schedule of `steps` steps. The same seed makes the same schedule.
    #[must_use]
    pub fn random(seed: u64, steps: usize, abilities: Abilities) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let step = |_| {
            let first = random_fault(&mut random, abilities);
            let mut faults = vec![first];
            if random.random_bool(0.2) {
                faults.push(random_fault(&mut random, abilities));
            }
            Step {
                faults,
                hold_ms: random.random_range(300..2_500),
                rest_ms: random.random_range(500..2_500),
            }
        };
        Self { seed, steps: (0..steps).map(step).collect() }
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
    pub fn within(mut self, abilities: Abilities) -> Self {
        let possible = |fault: &Fault| {
            (abilities.links || !fault.needs_links())
                && (abilities.nodes || !fault.needs_nodes())
                && (abilities.processes || *fault == Fault::Transfer)
        };
        for step in &mut self.steps {
            step.faults.retain(possible);
        }
        self.steps.retain(|step| !step.faults.is_empty());
        self
    }
}

fn random_fault(random: &mut StdRng, abilities: Abilities) -> Fault {
    let who = |random: &mut StdRng| match random.random_range(0..10) {
        0..5 => Who::Leader,
        5..8 => Who::Follower,
        8 => Who::Any,
        _ => Who::Majority,
    };
    let mut choices = vec![Fault::Transfer];
    if abilities.processes {
        choices.extend([
            Fault::Kill(who(random)),
            Fault::Kill(Who::Leader),
            Fault::Kill(if random.random_bool(0.3) { Who::All } else { Who::Follower }),
            Fault::Pause(who(random)),
            Fault::Terminate(Who::Leader),
        ]);
    }
    if abilities.links {
        let from = *[From::Masters, From::Clients, From::Everybody]
            .choose(random)
            .unwrap_or(&From::Everybody);
        let direction = *[Direction::Both, Direction::In, Direction::Out]
            .choose(random)
            .unwrap_or(&Direction::Both);
        choices.extend([
            Fault::Cut { who: who(random), from, direction },
            Fault::Cut { who: Who::Leader, from: From::Everybody, direction: Direction::Both },
            Fault::Bridge,
            Fault::Slow {
                who: who(random),
                delay_ms: random.random_range(5..150),
                loss: f64::from(random.random_range(0..20_u32)) / 100.0,
            },
        ]);
    }
    if abilities.nodes && abilities.processes {
        choices.extend([Fault::KillAgent, Fault::KillNode]);
        if abilities.links {
            choices.push(Fault::CutNode);
        }
    }
    choices.choose(random).cloned().unwrap_or(Fault::Transfer)
}

/// Name, what it is good for, and its steps.
pub const SCENARIOS: &[(&str, &str, &str)] = &[
    (
        "kills",
        "SIGKILL of the leader, of a follower, of a majority, of all",
        "- {faults: [{kill: leader}]}\n- {faults: [{kill: follower}]}\n- {faults: [{kill: leader}]}\n\
         - {faults: [{kill: majority}]}\n- {faults: [{kill: all}], hold-ms: 500}\n",
    ),
    (
        "pauses",
        "SIGSTOP of the leader and of followers, for half an election time-out and for several",
        "- {faults: [{pause: leader}], hold-ms: 500}\n- {faults: [{pause: leader}], hold-ms: 3000}\n\
         - {faults: [{pause: follower}], hold-ms: 2000}\n- {faults: [{pause: majority}], hold-ms: \
         2000}\n",
    ),
    (
        "planned",
        "what an operator does: transfers, a rolling restart",
        "- {faults: [transfer]}\n- {faults: [{terminate: m1}]}\n- {faults: [{terminate: m2}]}\n\
         - {faults: [{terminate: m3}]}\n- {faults: [{terminate: leader}]}\n",
    ),
    (
        "partitions",
        "the leader cut off from masters, clients, everybody; one way; bridged; slow and lossy",
        "- {faults: [{cut: {who: leader, from: everybody}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: leader, from: masters}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: leader, from: masters, direction: in}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: leader, from: masters, direction: out}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: follower, from: everybody}}], hold-ms: 3000}\n\
         - {faults: [bridge], hold-ms: 4000}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60, loss: 0.1}}], hold-ms: 3000}\n",
    ),
    (
        "transfers",
        "leadership goes round, many times",
        "- {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n",
    ),
    (
        "blackout",
        "all masters at once, three times",
        "- {faults: [{kill: all}], hold-ms: 200, rest-ms: 1000}\n\
         - {faults: [{kill: all}], hold-ms: 200, rest-ms: 1000}\n\
         - {faults: [{kill: all}], hold-ms: 200, rest-ms: 1000}\n",
    ),
    (
        "nodes",
        "an agent dies, a node dies with its containers, a node is cut off",
        "- {faults: [kill-agent], hold-ms: 2000}\n- {faults: [kill-node], hold-ms: 6000}\n\
         - {faults: [cut-node], hold-ms: 5000}\n",
    ),
    (
        "short",
        "a little of everything, for every build",
        "- {faults: [{kill: leader}], hold-ms: 1200, rest-ms: 800}\n\
         - {faults: [{cut: {who: leader, from: everybody}}], hold-ms: 2500, rest-ms: 1000}\n\
         - {faults: [{pause: leader}], hold-ms: 2000, rest-ms: 800}\n\
         - {faults: [{terminate: leader}], hold-ms: 800, rest-ms: 800}\n\
         - {faults: [{kill: all}], hold-ms: 300, rest-ms: 800}\n",
    ),
];

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
