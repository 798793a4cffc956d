//! The masters' Raft configuration and state machine on a simulated network, disk and clock: a
//! minute of a cluster's life takes milliseconds, and the same seed lives the same life again.
//!
//! What is simulated is below openraft: messages that are late, lost or cut off, syncs that take
//! time, crashes that lose what was not synced. What is real is openraft with the options of
//! [`Options`](crate::Options), and `quorate_store`'s state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::impls::leader_id_std;
use parking_lot::Mutex;
use quorate_store::{CommandResult, MemberId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::types::{MemberInfo, Proposal};

#[path = "simulation_network.rs"]
mod network;
#[path = "simulation_runtime.rs"]
mod runtime;
#[path = "simulation_storage.rs"]
mod storage;
#[path = "simulation_test.rs"]
mod tests;

use network::SimulatedNetwork;
use runtime::Runtime;
use storage::{Disk, Replica};

openraft::declare_raft_types!(
    /// As [`TypeConfig`](crate::types::TypeConfig), on the simulation's runtime.
    pub(crate) Simulated:
        D = Proposal,
        R = CommandResult,
        NodeId = MemberId,
        Node = MemberInfo,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, MemberId>,
        AsyncRuntime = Runtime,
);

type Raft = openraft::Raft<Simulated, Replica>;
type Entry = openraft::type_config::alias::EntryOf<Simulated>;
type LogId = openraft::type_config::alias::LogIdOf<Simulated>;
type Vote = openraft::type_config::alias::VoteOf<Simulated>;
type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Simulated>;
type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Simulated>;

/// What is broken on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    /// Writes of the log are reported before they are on disk.
    EarlyAcknowledgement,
    /// A vote is not synced.
    ForgottenVote,
    /// Reads ask nobody whether the leader still leads.
    LocalReads,
}

/// A running master.
#[derive(Clone)]
struct Life {
    /// A process that has crashed is heard no more, whatever it still does.
    number: u64,
    raft: Raft,
    replica: Replica,
}

/// Everything that is shared: masters, wires, and dice.
struct World {
    defect: Defect,
    random: Mutex<StdRng>,
    /// Masters that run.
    alive: Mutex<BTreeMap<MemberId, Life>>,
    disks: BTreeMap<MemberId, Arc<Disk>>,
    /// Wires that carry nothing, from and to.
    cut: Mutex<BTreeSet<(MemberId, MemberId)>>,
    /// Share of the messages that are lost.
    loss: Mutex<f64>,
    /// What must not happen, and has.
    violations: Mutex<Vec<String>>,
    lives: Mutex<u64>,
}

impl World {
    fn new(seed: u64, masters: u64, defect: Defect) -> Arc<Self> {
        Arc::new(Self {
            defect,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            alive: Mutex::default(),
            disks: (1..=masters).map(|id| (id, Arc::default())).collect(),
            cut: Mutex::default(),
            loss: Mutex::default(),
            violations: Mutex::default(),
            lives: Mutex::default(),
        })
    }

    fn dice(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().random_range(range)
    }

    fn chance(&self, probability: f64) -> bool {
        self.random.lock().random_bool(probability)
    }

    fn violation(&self, text: String) {
        self.violations.lock().push(text);
    }

    fn alive(&self, id: MemberId) -> Option<Life> {
        self.alive.lock().get(&id).cloned()
    }

    fn is_alive(&self, id: MemberId, life: u64) -> bool {
        self.alive.lock().get(&id).is_some_and(|running| running.number == life)
    }

    /// The time that a message, or a sync, takes: mostly little.
    fn delay(&self, micros: std::ops::Range<u64>) -> Duration {
        let slow = if self.chance(0.02) { 20 } else { 1 };
        Duration::from_micros(self.dice(micros) * slow)
    }

    /// Starts a master on what its disk holds.
    async fn start(self: &Arc<Self>, id: MemberId, config: &Arc<openraft::Config>) {
        let number = {
            let mut lives = self.lives.lock();
            *lives += 1;
            *lives
        };
        let disk = Arc::clone(&self.disks[&id]);
        let log = disk.open(self, number);
        let replica = Replica::new(id, &disk, self);
        let network = SimulatedNetwork { world: Arc::clone(self), from: id, life: number };
        let raft = Raft::new(id, Arc::clone(config), network, log, replica.clone()).await;
        match raft {
            Ok(raft) => drop(self.alive.lock().insert(id, Life { number, raft, replica })),
            Err(error) => self.violation(format!("master {id} cannot start: {error}")),
        }
    }

    /// The master's machine dies: what was not synced is gone.
    async fn crash(&self, id: MemberId) {
        let life = self.alive.lock().remove(&id);
        self.disks[&id].crash();
        if let Some(life) = life {
            // Nobody hears it any more; its tasks need not live on.
            let _ = life.raft.shutdown().await;
        }
    }
}
