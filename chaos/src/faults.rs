//! Carries faults out, and mends them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use quorate_testkit::links::{CLIENTS, Links, Rule};
use quorate_testkit::membership::place;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::disk::Trouble;
use crate::history::Nanos;
use crate::plan::{Direction, Fault, From, Torn, Who};
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
    /// Was a clock turned?
    #[serde(default)]
    pub turns_clock: bool,
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
    /// Let the node be used again.
    Uncordon(String),
    /// Its disk is well again.
    Disk(String),
    /// Finish a replacement, or take back an admission, for which there was no majority.
    FillPlaces,
    /// Replace this master, whose data is damaged or gone.
    Replace(String),
    /// Remove the master that was added.
    Shrink(String),
    /// Start the process again.
    Start(String),
    /// The same after what was not synced is gone from its disk.
    StartAfterCrash(String),
    /// The same when it has ended because of its disk.
    StartIfEnded(String),
    /// Let it go on.
    Continue(String),
    /// Start the node's Docker daemon again.
    StartDocker(String),
    /// Let it go on.
    ContinueDocker(String),
    /// Mend the link of the node's host.
    Plug(String),
    /// Turn the process's clock back to what it was.
    Clock(String),
    /// Remove the rule for what the first sends to the second.
    Link(String, String),
}

impl Mend {
    /// The process that is mended; none when it is a link, a place, or a node object's mark.
    fn process(&self) -> Option<&str> {
        match self {
            Self::Uncordon(_) | Self::Link(..) | Self::FillPlaces => None,
            Self::Disk(name)
            | Self::Replace(name)
            | Self::Shrink(name)
            | Self::Start(name)
            | Self::StartAfterCrash(name)
            | Self::StartIfEnded(name)
            | Self::Continue(name)
            | Self::StartDocker(name)
            | Self::ContinueDocker(name)
            | Self::Plug(name)
            | Self::Clock(name) => Some(name),
        }
    }

    /// Is there still what it mends? A master that another fault of the same step, or another
    /// mend of it, has replaced took its disk, its clock and its damage along.
    fn concerns(&self, processes: &[String]) -> bool {
        self.process().is_none_or(|name| processes.iter().any(|known| known == name))
    }
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
    match fault {
        Fault::Kill(who) => signal(target, who, Signal::SIGKILL, random, mends).await,
        Fault::Terminate(who) => signal(target, who, Signal::SIGTERM, random, mends).await,
        Fault::Pause(who) => signal(target, who, Signal::SIGSTOP, random, mends).await,
        Fault::Transfer => target.transfer().await.map(|leader| vec![leader]),
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
        Fault::PowerCut { .. }
        | Fault::FailSyncs(_)
        | Fault::FailWrites(_)
        | Fault::FullDisk { .. }
        | Fault::SlowDisk { .. } => disks(target, fault, random, mends).await,
        Fault::FlipBit(_) | Fault::Wipe(_) | Fault::Replace(_) | Fault::Grow => {
            members(target, fault, random, mends).await
        }
        Fault::Clock { who, by_seconds } => {
            let victims = target.resolve(who, random).await?;
            for name in &victims {
                mends.push(Mend::Clock(name.clone()));
                target.cluster().turn_clock(name, *by_seconds)?;
            }
            Ok(victims)
        }
        Fault::KillDocker(who) | Fault::PauseDocker(who) => {
            docker(target, fault, &target.resolve(who, random).await?, mends).await
        }
        Fault::KillAgent | Fault::KillNode | Fault::CutNode | Fault::DeletePod | Fault::Drain => {
            nodes(target, fault, random, mends).await
        }
    }
}

/// What hits nodes and pods.
async fn nodes(
    target: &Target,
    fault: &Fault,
    random: &mut StdRng,
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    let cluster = target.cluster();
    match fault {
        Fault::DeletePod => target.delete_any_pod(random).await.map(|name| vec![name]),
        Fault::Drain => {
            let name = target.any_node_object(random).await?;
            mends.push(Mend::Uncordon(name.clone()));
            target.drain(&name).await?;
            Ok(vec![name])
        }
        Fault::CutNode => {
            let name = target.any_node(random)?;
            if let Ok(host) = cluster.host(&name) {
                mends.push(Mend::Plug(name.clone()));
                host.unplug().await?;
                return Ok(vec![name]);
            }
            for master in target.masters() {
                set(target, &name, &master, CUT, mends)?;
                set(target, &master, &name, CUT, mends)?;
            }
            Ok(vec![name])
        }
        _ => {
            let name = target.any_node(random)?;
            mends.push(Mend::Start(name.clone()));
            if *fault == Fault::KillNode {
                cluster.kill_node(&name).await?;
            } else {
                cluster.signal(&name, Signal::SIGKILL)?;
            }
            Ok(vec![name])
        }
    }
}

/// The daemons of nodes.
async fn docker(
    target: &Target,
    fault: &Fault,
    victims: &[String],
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    for name in victims {
        let host = target.cluster().host(name)?;
        if matches!(fault, Fault::KillDocker(_)) {
            mends.push(Mend::StartDocker(name.clone()));
            host.kill_docker().await?;
        } else {
            mends.push(Mend::ContinueDocker(name.clone()));
            host.pause_docker()?;
        }
    }
    Ok(victims.to_vec())
}

/// One signal for all victims, so that "all" means all at once.
async fn signal(
    target: &Target,
    who: &Who,
    signal: Signal,
    random: &mut StdRng,
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    let victims = target.resolve(who, random).await?;
    for name in &victims {
        let paused = signal == Signal::SIGSTOP;
        mends.push(if paused { Mend::Continue(name.clone()) } else { Mend::Start(name.clone()) });
        target.cluster().signal(name, signal)?;
    }
    Ok(victims)
}

/// Troubles of disks.
async fn disks(
    target: &Target,
    fault: &Fault,
    random: &mut StdRng,
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    let trouble = |trouble| (trouble, true);
    let (who, (trouble, fatal)) = match fault {
        Fault::PowerCut { who, torn } => return cut_power(target, who, *torn, random, mends).await,
        Fault::FailSyncs(who) => (who, trouble(Trouble::SyncsFail)),
        Fault::FailWrites(who) => (who, trouble(Trouble::WritesFail)),
        Fault::FullDisk { who, room_mb } => {
            (who, trouble(Trouble::Full { room: room_mb * 1024 * 1024 }))
        }
        Fault::SlowDisk { who, delay_ms } => {
            (who, (Trouble::SlowSyncs(Duration::from_millis(*delay_ms)), false))
        }
        other => bail!("{other} is no trouble of a disk"),
    };
    let victims = target.resolve(who, random).await?;
    for name in &victims {
        target.trouble(name, trouble)?;
        mends.push(Mend::Disk(name.clone()));
        if fatal {
            // It ends by itself; and what it was told is lost is really lost.
            let lost = matches!(fault, Fault::FailSyncs(_));
            let (with, without) = (Mend::StartAfterCrash, Mend::StartIfEnded);
            mends.push(if lost { with(name.clone()) } else { without(name.clone()) });
        }
    }
    Ok(victims)
}

async fn cut_power(
    target: &Target,
    who: &Who,
    torn: Torn,
    random: &mut StdRng,
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    let victims = target.resolve(who, random).await?;
    for name in &victims {
        mends.push(Mend::Start(name.clone()));
        target.cluster().signal(name, Signal::SIGKILL)?;
    }
    for name in &victims {
        target.cluster().wait_ended(name).await?;
        target.crash_disk(name, torn, random)?;
    }
    Ok(victims)
}

/// Masters that are damaged or replaced.
async fn members(
    target: &Target,
    fault: &Fault,
    random: &mut StdRng,
    mends: &mut Vec<Mend>,
) -> Result<Vec<String>> {
    let Some(who) = fault.replaces() else { bail!("{fault} replaces nobody") };
    if *fault == Fault::Grow {
        let place = target.spare_place()?;
        // It may be there though nobody has said so in time.
        mends.extend([Mend::Shrink(place.next()), Mend::FillPlaces]);
        return target.grow(place).await.map(|name| vec![name]);
    }
    let name = target.resolve(who, random).await?.pop().context("nobody to replace")?;
    if matches!(fault, Fault::Replace(_)) {
        mends.push(Mend::FillPlaces);
        let new = target.replace(&name).await?;
        return Ok(vec![name, new]);
    }
    mends.push(Mend::Replace(name.clone()));
    let cluster = target.cluster();
    cluster.kill(&name).await?;
    if matches!(fault, Fault::Wipe(_)) {
        target.wipe(&name)?;
    } else {
        target.flip_bit(&name, random)?;
    }
    // It may refuse to run: that is what it should do when it notices.
    cluster.start_again(&name)?;
    Ok(vec![name])
}

/// How long a master whose disk was in trouble may take to say that it lives.
const ANSWER: Duration = Duration::from_millis(500);

const CUT: Rule = Rule { cut: true, delay: Duration::ZERO, loss: 0.0 };

fn links(target: &Target) -> Result<&Links> {
    target.cluster().links().context("this cluster has no proxy between its processes")
}

fn set(target: &Target, from: &str, to: &str, rule: Rule, mends: &mut Vec<Mend>) -> Result<()> {
    links(target)?.set(place(from), place(to), rule);
    mends.push(Mend::Link(from.to_owned(), to.to_owned()));
    Ok(())
}

fn everybody_but(target: &Target, name: &str) -> Vec<String> {
    let masters = target.masters().into_iter().filter(|other| other != name);
    masters.chain(target.nodes.iter().cloned()).chain([CLIENTS.to_owned()]).collect()
}

fn cut(
    target: &Target,
    name: &str,
    from: From,
    direction: Direction,
    mends: &mut Vec<Mend>,
) -> Result<()> {
    let masters = target.masters();
    let is_master = |other: &String| masters.contains(other);
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
    let mut masters = target.masters();
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
/// When a process cannot be started again, or a master not be replaced.
pub async fn mend(target: &Target, mut mends: Vec<Mend>, random: &mut StdRng) -> Result<()> {
    let cluster = target.cluster();
    let processes = target.processes();
    mends.retain(|mend| mend.concerns(&processes));
    for mend in &mends {
        match mend {
            // It may have been killed while it was paused.
            Mend::Continue(name) => drop(cluster.signal(name, Signal::SIGCONT)),
            Mend::ContinueDocker(name) => cluster.host(name)?.continue_docker(),
            Mend::Plug(name) => cluster.host(name)?.plug().await?,
            // A process without a clock of ours failed to have it turned.
            Mend::Clock(name) if cluster.has_clock(name) => cluster.turn_clock(name, 0)?,
            Mend::Link(from, to) => links(target)?.set(place(from), place(to), Rule::default()),
            _ => {}
        }
    }
    for mend in &mends {
        if let Mend::StartAfterCrash(name) = mend {
            // Whoever has not noticed yet goes with the power, too.
            drop(cluster.signal(name, Signal::SIGKILL));
            cluster.wait_ended(name).await?;
            target.crash_disk(name, Torn::No, random)?;
        }
    }
    for mend in &mends {
        if let Mend::Disk(name) = mend {
            target.heal_disk(name)?;
        }
    }
    for mend in &mends {
        if let Mend::StartDocker(name) = mend {
            cluster.start_docker(name).await?;
        }
    }
    for (name, even_if_it_answers) in starts(&mends) {
        if !even_if_it_answers {
            if answers(target, name).await {
                continue;
            }
            drop(cluster.signal(name, Signal::SIGKILL));
        }
        start(target, name).await?;
    }
    for mend in mends {
        if !mend.concerns(&target.processes()) {
            continue;
        }
        match mend {
            Mend::FillPlaces => target.fill_places().await?,
            Mend::Replace(name) => drop(target.replace(&name).await?),
            Mend::Shrink(name) => target.shrink(&name).await?,
            Mend::Uncordon(name) => target.uncordon(&name).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Which processes to start again, each once though two faults hit it, and whether even if it
/// answers.
fn starts(mends: &[Mend]) -> BTreeMap<&str, bool> {
    let mut starts = BTreeMap::new();
    for mend in mends {
        let (name, certain) = match mend {
            Mend::Start(name) | Mend::StartAfterCrash(name) => (name.as_str(), true),
            Mend::StartIfEnded(name) => (name.as_str(), false),
            _ => continue,
        };
        *starts.entry(name).or_default() |= certain;
    }
    starts
}

async fn answers(target: &Target, name: &str) -> bool {
    let Ok(client) = target.observer_of(name) else { return false };
    timeout(ANSWER, client.status()).await.is_ok_and(|status| status.is_ok())
}

/// Starts a process again that was killed or told to end.
async fn start(target: &Target, name: &str) -> Result<()> {
    let cluster = target.cluster();
    // A process that was asked to end gets its time to do so.
    cluster.wait_ended(name).await?;
    // An agent ends when it finds no Docker at its start.
    cluster.start_docker(name).await?;
    cluster.start_again(name)
}

#[cfg(test)]
#[path = "faults_test.rs"]
mod tests;
