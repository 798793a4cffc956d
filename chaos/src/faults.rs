//! Carries faults out, and mends them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use quorate_testkit::links::{CLIENTS, Links, Rule};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};

use crate::history::Nanos;
use crate::plan::{Direction, Fault, From};
use crate::target::Target;

/// A fault as it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Struck {
    /// What was done.
    pub fault: String,
    /// To which processes.
    pub victims: Vec<String>,
    /// When it began.
    pub from: Nanos,
    /// When it was mended.
    pub until: Nanos,
    /// Did masters alone suffer?
    pub spares_nodes: bool,
    /// Why it could not be carried out.
    pub skipped: Option<String>,
}

impl Struck {
    /// The fault with its victims.
    #[must_use]
    pub fn title(&self) -> String {
        if self.victims.is_empty() {
            return self.fault.clone();
        }
        format!("{} ({})", self.fault, self.victims.join(", "))
    }
}

/// How to mend a fault.
#[derive(Debug)]
pub enum Mend {
    /// Start the process again.
    Start(String),
    /// Let it go on.
    Continue(String),
    /// Remove the rule for what the first sends to the second.
    Link(String, String),
}

/// Carries a fault out. Returns whom it hit and how it is mended.
///
/// # Errors
/// When it cannot be carried out; then nothing has to be mended but what `mends` holds.
pub async fn strike(
    target: &Target,
    fault: &Fault,
    random: &mut StdRng,
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    let cluster = target.cluster();
    match fault {
        Fault::Kill(who) => {
            let victims = target.resolve(who, random).await?;
            for name in &victims {
                mends.push(Mend::Start(name.clone()));
                // Signals first, so that "all" means all at once.
                cluster.signal(name, Signal::SIGKILL)?;
            }
            Ok(victims)
        }
        Fault::Terminate(who) => {
            let victims = target.resolve(who, random).await?;
            for name in &victims {
                mends.push(Mend::Start(name.clone()));
                cluster.signal(name, Signal::SIGTERM)?;
            }
            Ok(victims)
        }
        Fault::Pause(who) => {
            let victims = target.resolve(who, random).await?;
            for name in &victims {
                mends.push(Mend::Continue(name.clone()));
                cluster.signal(name, Signal::SIGSTOP)?;
            }
            Ok(victims)
        }
        Fault::Transfer => {
            let leader = target.leader().await?;
            target.transfer().await?;
            Ok(vec![leader])
        }
        Fault::Cut { who, from, direction } => {
            let victims = target.resolve(who, random).await?;
            for name in &victims {
                cut(target, name, *from, *direction, mends)?;
            }
            Ok(victims)
        }
        Fault::Bridge => bridge(target, random, mends),
        Fault::Slow { who, delay_ms, loss } => {
            let victims = target.resolve(who, random).await?;
            let delay = Duration::from_millis(*delay_ms);
            let rule = Rule { delay, loss: *loss, ..Rule::default() };
            for name in &victims {
                for other in everybody_but(target, name) {
                    set(target, name, &other, rule, mends)?;
                    set(target, &other, name, rule, mends)?;
                }
            }
            Ok(victims)
        }
        Fault::KillAgent => {
            let name = target.any_node(random)?;
            mends.push(Mend::Start(name.clone()));
            cluster.signal(&name, Signal::SIGKILL)?;
            Ok(vec![name])
        }
        Fault::KillNode => {
            let name = target.any_node(random)?;
            mends.push(Mend::Start(name.clone()));
            cluster.kill_node(&name).await?;
            Ok(vec![name])
        }
        Fault::CutNode => {
            let name = target.any_node(random)?;
            for master in &target.masters {
                set(target, &name, master, CUT, mends)?;
                set(target, master, &name, CUT, mends)?;
            }
            Ok(vec![name])
        }
    }
}

const CUT: Rule = Rule { cut: true, delay: Duration::ZERO, loss: 0.0 };

fn links(target: &Target) -> Result<&Links> {
    target.cluster().links().context("this cluster has no proxy between its processes")
}

fn set(target: &Target, from: &str, to: &str, rule: Rule, mends: &mut Vec<Mend>) -> Result<()> {
    links(target)?.set(from, to, rule);
    mends.push(Mend::Link(from.to_owned(), to.to_owned()));
    Ok(())
}

fn everybody_but(target: &Target, name: &str) -> Vec<String> {
    let masters = target.masters.iter().filter(|other| *other != name).cloned();
    masters.chain(target.nodes.iter().cloned()).chain([CLIENTS.to_owned()]).collect()
}

fn cut(
    target: &Target,
    name: &str,
    from: From,
    direction: Direction,
    mends: &mut Vec<Mend>,
) -> Result<()> {
    let is_master = |other: &String| target.masters.contains(other);
    let others = everybody_but(target, name).into_iter().filter(|other| match from {
        From::Masters => is_master(other),
        From::Clients => !is_master(other),
        From::Everybody => true,
    });
    for other in others {
        if direction != Direction::Out {
            set(target, &other, name, CUT, mends)?;
        }
        if direction != Direction::In {
            set(target, name, &other, CUT, mends)?;
        }
    }
    Ok(())
}

/// Two masters, the leader or not, that do not hear each other; a third hears both.
fn bridge(target: &Target, random: &mut StdRng, mends: &mut Vec<Mend>) -> Result<Vec<String>> {
    let mut masters = target.masters.clone();
    masters.shuffle(random);
    masters.truncate(2);
    if let [one, other] = masters.as_slice() {
        set(target, one, other, CUT, mends)?;
        set(target, other, one, CUT, mends)?;
    }
    Ok(masters)
}

/// Mends everything that was broken. What is mended already stays as it is.
///
/// # Errors
/// When a process cannot be started again.
pub async fn mend(target: &Target, mends: Vec<Mend>) -> Result<()> {
    let cluster = target.cluster();
    for mend in &mends {
        match mend {
            // It may have been killed while it was paused.
            Mend::Continue(name) => drop(cluster.signal(name, Signal::SIGCONT)),
            Mend::Link(from, to) => links(target)?.set(from, to, Rule::default()),
            Mend::Start(_) => {}
        }
    }
    for mend in mends {
        if let Mend::Start(name) = mend {
            // A process that was asked to end gets its time to do so.
            cluster.wait_ended(&name).await?;
            cluster.start_again(&name)?;
        }
    }
    Ok(())
}
