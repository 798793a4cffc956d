//! What can be broken.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a fault needs of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Ability {
    /// Processes that may be killed and stopped.
    Processes,
    /// A proxy between the processes.
    Network,
    /// Masters whose data lies on disks of ours.
    Disks,
    /// Masters that may be removed, added and replaced.
    Members,
    /// Agents that may be killed, with and without their containers.
    Nodes,
    /// Pods that may be deleted, and nodes that may be drained.
    Pods,
    /// Nodes on hosts of their own, whose Docker daemons may be killed and paused.
    Docker,
    /// Processes of a debug build, whose clocks may be turned.
    Clock,
}

/// What can be done to a cluster.
pub type Abilities = std::collections::BTreeSet<Ability>;

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
    /// The agent of any node.
    Node,
    /// This process: a master or a node.
    #[serde(untagged)]
    Named(String),
}

impl Who {
    /// Is it a master, or several?
    fn is_master(&self) -> bool {
        match self {
            Self::Node => false,
            Self::Named(name) => name.starts_with('m'),
            _ => true,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Follower => f.write_str("a follower"),
            Self::Any => f.write_str("a master"),
            Self::Majority => f.write_str("a majority of the masters"),
            Self::All => f.write_str("all masters"),
            Self::Node => f.write_str("a node"),
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

/// What a power cut leaves of writes that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Torn {
    /// Nothing.
    #[default]
    No,
    /// The beginning, up to any byte.
    Prefix,
    /// The beginning, and the whole size: the rest is zeros.
    Zeros,
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
    /// The power fails: SIGKILL, and what was not synced is gone from the disk.
    PowerCut {
        /// Whose.
        who: Who,
        /// How much of what was not synced has reached the disk.
        #[serde(default)]
        torn: Torn,
    },
    /// Every sync of the disk fails with EIO; then the power fails.
    FailSyncs(Who),
    /// Every write to the disk fails with EIO.
    FailWrites(Who),
    /// The disk is full: writes fail with ENOSPC.
    #[serde(rename_all = "kebab-case")]
    FullDisk {
        /// Whose.
        who: Who,
        /// MiB that are still written before.
        #[serde(default)]
        room_mb: u64,
    },
    /// Every sync of the disk is slow.
    #[serde(rename_all = "kebab-case")]
    SlowDisk {
        /// Whose.
        who: Who,
        /// Milliseconds more.
        delay_ms: u64,
    },
    /// A bit of a database flips while its master is down; the master is replaced afterwards.
    FlipBit(Who),
    /// A master finds its disk empty; it is replaced afterwards.
    Wipe(Who),
    /// A master is removed for good, and a new one is added in its place.
    Replace(Who),
    /// One more master is added, and removed when the fault is over.
    Grow,
    /// SIGKILL of an agent; its containers run on.
    KillAgent,
    /// An agent and its containers, as by a power cut.
    KillNode,
    /// A node that reaches no master; its pods run on.
    CutNode,
    /// SIGKILL of a node's Docker daemon and containerd; started again when the fault is over.
    KillDocker(Who),
    /// SIGSTOP of them, and SIGCONT when the fault is over.
    PauseDocker(Who),
    /// The wall clock of a process jumps, and back when the fault is over.
    #[serde(rename_all = "kebab-case")]
    Clock {
        /// Whose.
        who: Who,
        /// Forward, or backward when it is negative.
        by_seconds: i64,
    },
    /// Any pod is deleted.
    DeletePod,
    /// A node is emptied, and may be used again afterwards.
    Drain,
}

impl Fault {
    /// Do masters alone suffer?
    #[must_use]
    pub fn spares_nodes(&self) -> bool {
        match self {
            Self::Kill(who) | Self::Terminate(who) | Self::Pause(who) => who.is_master(),
            // Nothing on a node has a reason to notice.
            Self::Clock { .. } => true,
            _ => {
                let needs = self.needs();
                !needs.contains(&Ability::Nodes) && !needs.contains(&Ability::Pods)
            }
        }
    }

    /// Has no container a reason to notice?
    #[must_use]
    pub fn spares_containers(&self) -> bool {
        // An agent that is restarted finds its containers as it left them, and Docker that hangs
        // leaves them alone.
        matches!(self, Self::Terminate(_) | Self::PauseDocker(_)) || self.spares_nodes()
    }

    /// Does it take just one follower away, if any master, and leave the leader alone?
    pub(super) fn hits_follower(&self) -> bool {
        match self {
            Self::Kill(who)
            | Self::Terminate(who)
            | Self::Pause(who)
            | Self::Cut { who, .. }
            | Self::Slow { who, .. } => *who == Who::Follower,
            _ => false,
        }
    }

    /// Do all masters run on, and reach each other?
    pub(super) fn spares_masters(&self) -> bool {
        match self {
            Self::Kill(who) | Self::Terminate(who) | Self::Pause(who) => !who.is_master(),
            Self::Clock { .. }
            | Self::KillAgent
            | Self::KillNode
            | Self::CutNode
            | Self::KillDocker(_)
            | Self::PauseDocker(_)
            | Self::DeletePod
            | Self::Drain => true,
            _ => false,
        }
    }

    /// What it takes.
    #[must_use]
    pub fn needs(&self) -> &'static [Ability] {
        match self {
            Self::Transfer => &[],
            Self::Kill(who) | Self::Terminate(who) | Self::Pause(who) if !who.is_master() => {
                &[Ability::Nodes, Ability::Processes]
            }
            Self::Kill(_) | Self::Terminate(_) | Self::Pause(_) => &[Ability::Processes],
            Self::Cut { .. } | Self::Bridge | Self::Slow { .. } => &[Ability::Network],
            Self::SlowDisk { .. } => &[Ability::Disks],
            Self::PowerCut { .. }
            | Self::FailSyncs(_)
            | Self::FailWrites(_)
            | Self::FullDisk { .. } => &[Ability::Disks, Ability::Processes],
            Self::FlipBit(_) => &[Ability::Disks, Ability::Members],
            Self::Wipe(_) | Self::Replace(_) | Self::Grow => &[Ability::Members],
            Self::KillAgent | Self::KillNode => &[Ability::Nodes, Ability::Processes],
            Self::CutNode => &[Ability::Nodes, Ability::Network],
            Self::KillDocker(_) | Self::PauseDocker(_) => &[Ability::Nodes, Ability::Docker],
            Self::Clock { who, .. } if who.is_master() => &[Ability::Clock],
            Self::Clock { .. } => &[Ability::Clock, Ability::Nodes],
            Self::DeletePod | Self::Drain => &[Ability::Pods],
        }
    }

    /// May a master end because of what happens to its disk?
    #[must_use]
    pub fn damages_disks(&self) -> bool {
        matches!(self, Self::Wipe(_)) || self.needs().contains(&Ability::Disks)
    }

    /// Whom it costs a disk or a vote: more than one at a time may cost the cluster.
    #[must_use]
    pub fn replaces(&self) -> Option<&Who> {
        match self {
            Self::FlipBit(who) | Self::Wipe(who) | Self::Replace(who) => Some(who),
            Self::Grow => Some(&Who::Any),
            _ => None,
        }
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
            Self::PowerCut { who, torn } => {
                let torn = match torn {
                    Torn::No => "",
                    Torn::Prefix => ", torn writes",
                    Torn::Zeros => ", torn writes with zeros",
                };
                write!(f, "cut the power of {who}{torn}")
            }
            Self::FailSyncs(who) => write!(f, "syncs fail on the disk of {who}"),
            Self::FailWrites(who) => write!(f, "writes fail on the disk of {who}"),
            Self::FullDisk { who, room_mb } => {
                write!(f, "{room_mb} MiB left on the disk of {who}")
            }
            Self::SlowDisk { who, delay_ms } => {
                write!(f, "{delay_ms} ms per sync on the disk of {who}")
            }
            Self::FlipBit(who) => write!(f, "flip a bit on the disk of {who}"),
            Self::Wipe(who) => write!(f, "wipe the disk of {who}"),
            Self::Replace(who) => write!(f, "replace {who}"),
            Self::Grow => write!(f, "add a master for a while"),
            Self::KillAgent => write!(f, "kill an agent"),
            Self::KillNode => write!(f, "kill a node with its containers"),
            Self::CutNode => write!(f, "cut a node off from all masters"),
            Self::KillDocker(who) => write!(f, "kill the Docker daemon of {who}"),
            Self::PauseDocker(who) => write!(f, "pause the Docker daemon of {who}"),
            Self::Clock { who, by_seconds } => {
                let way = if *by_seconds < 0 { "back" } else { "forward" };
                write!(f, "turn the clock of {who} {way} by {} s", by_seconds.unsigned_abs())
            }
            Self::DeletePod => write!(f, "delete a pod"),
            Self::Drain => write!(f, "drain a node"),
        }
    }
}
