//! Lives of simulated clusters: clients, faults by chance, and in the end what must hold.
//!
//! `QUORATE_SIMULATION_SEEDS=FIRST..END` runs others than the few of every build.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime as _;
use openraft::ReadPolicy;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use parking_lot::Mutex;
use prost::Message as _;
use quorate_store::{Command, MemberId, TxnRequest};
use tokio::time::{Instant, sleep, timeout};

use super::{Defect, Runtime, World};
use crate::types::{MemberInfo, Proposal};
use crate::{InitialMember, Options};

/// How long clients work and faults strike.
const LIFE: Duration = Duration::from_secs(20);
/// How long the cluster may take, without faults, to serve again and to agree.
const CONVERGENCE: Duration = Duration::from_secs(15);
/// Clients, each the only writer of its key.
const CLIENTS: u64 = 4;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of one client's key. Its n-th value is n.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// No reader that begins now may see less.
    least: u64,
    /// Nobody may see more.
    most: u64,
}

struct Clients {
    world: Arc<World>,
    keys: Mutex<BTreeMap<u64, Known>>,
    acknowledged: Mutex<DefaultHasher>,
    count: Mutex<u64>,
}

fn key(client: u64) -> String {
    format!("key-{client}")
}

fn proposal(command: &Command) -> Proposal {
    Proposal(vec![command.encode_to_vec().into()])
}

/// Whom to ask after an answer.
enum Next {
    Leader(Option<MemberId>),
    Anybody,
}

impl Clients {
    fn anybody(&self) -> MemberId {
        1 + self.world.dice(0..self.world.disks.len() as u64)
    }

    async fn propose(&self, to: MemberId, command: &Command) -> Result<(), Next> {
        let Some(life) = self.world.alive(to) else { return Err(Next::Anybody) };
        sleep(self.world.delay(50..1_000)).await;
        match timeout(PATIENCE, life.raft.client_write(proposal(command))).await {
            Ok(Ok(_)) if self.world.is_alive(to, life.number) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(Next::Leader(forward.leader_id))
            }
            _ => Err(Next::Anybody),
        }
    }

    /// Repeats one command, under one request id, until it is acknowledged.
    async fn write(&self, client: u64, until: Instant) {
        let value = {
            let mut keys = self.keys.lock();
            let known = keys.entry(client).or_default();
            known.most = known.least + 1;
            known.most
        };
        let mut command = Command::from(TxnRequest::put(key(client), value.to_string()));
        command.request_id = format!("{client}/{value}").into_bytes().into();
        let mut to = self.anybody();
        while Instant::now() < until {
            match self.propose(to, &command).await {
                Ok(()) => {
                    let at = Instant::now();
                    (client, value, at.duration_since(until - LIFE).as_micros())
                        .hash(&mut *self.acknowledged.lock());
                    *self.count.lock() += 1;
                    let mut keys = self.keys.lock();
                    let known = keys.entry(client).or_default();
                    known.least = known.least.max(value);
                    return;
                }
                Err(Next::Leader(Some(leader))) => to = leader,
                Err(_) => {
                    to = self.anybody();
                    sleep(Duration::from_millis(self.world.dice(5..50))).await;
                }
            }
        }
    }

    /// Reads a key of somebody else.
    async fn read(&self, client: u64) {
        let before = self.keys.lock().get(&client).copied().unwrap_or_default();
        let mut to = self.anybody();
        for _ in 0..3 {
            let Some(life) = self.world.alive(to) else { return };
            let leads = life.raft.server_metrics().borrow_watched().state == ServerState::Leader;
            if self.world.defect == Defect::LocalReads && leads {
                return self.judge(client, before, life.replica.get(&key(client)));
            }
            let asked = life.raft.ensure_linearizable(ReadPolicy::ReadIndex);
            match timeout(PATIENCE, asked).await {
                Ok(Ok(_)) if self.world.is_alive(to, life.number) => {
                    return self.judge(client, before, life.replica.get(&key(client)));
                }
                Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                    let Some(leader) = forward.leader_id else { return };
                    to = leader;
                }
                _ => return,
            }
        }
    }

    fn judge(&self, client: u64, before: Known, (value, version): (u64, u64)) {
        let mut keys = self.keys.lock();
        let known = keys.entry(client).or_default();
        if value < before.least || value > known.most {
            self.world.violation(format!(
                "{}: {value} was read, it must be {} to {}",
                key(client),
                before.least,
                known.most
            ));
        }
        if value != version {
            let text = format!("{}: value {value} after {version} writes", key(client));
            self.world.violation(text);
        }
        known.least = known.least.max(value);
    }

    async fn run(self: Arc<Self>, client: u64, until: Instant) {
        while Instant::now() < until {
            if self.world.chance(0.6) {
                self.write(client, until).await;
            } else {
                self.read(1 + self.world.dice(0..CLIENTS)).await;
            }
            sleep(Duration::from_millis(self.world.dice(1..40))).await;
        }
    }

    /// What leaders decide, which arrives late: maybe in somebody else's term.
    async fn leader_work(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            sleep(Duration::from_millis(self.world.dice(50..400))).await;
            for id in self.world.disks.keys() {
                let Some(life) = self.world.alive(*id) else { continue };
                let metrics = life.raft.server_metrics().borrow_watched().clone();
                if metrics.state != ServerState::Leader {
                    continue;
                }
                let term = metrics.vote.leader_id.term;
                let mut command = Command::from(TxnRequest::put("work", term.to_string()));
                command.fence = term;
                let (clients, late) = (Arc::clone(&self), self.world.dice(0..2_000));
                drop(Runtime::spawn(async move {
                    sleep(Duration::from_millis(late)).await;
                    let mut to = clients.anybody();
                    for _ in 0..3 {
                        match clients.propose(to, &command).await {
                            Err(Next::Leader(Some(leader))) => to = leader,
                            _ => return,
                        }
                    }
                }));
            }
        }
    }
}

/// Looks who leads.
async fn observe(world: Arc<World>, until: Instant) {
    let mut leaders: BTreeMap<u64, MemberId> = BTreeMap::new();
    while Instant::now() < until {
        for id in world.disks.keys() {
            let Some(life) = world.alive(*id) else { continue };
            let metrics = life.raft.server_metrics().borrow_watched().clone();
            if metrics.state == ServerState::Leader && world.is_alive(*id, life.number) {
                let term = metrics.vote.leader_id.term;
                let first = *leaders.entry(term).or_insert(*id);
                if first != *id {
                    world.violation(format!("term {term}: both {first} and {id} lead"));
                }
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn leader(world: &World) -> Option<MemberId> {
    let alive = world.alive.lock();
    let leads = |life: &super::Life| {
        let metrics = life.raft.server_metrics().borrow_watched().clone();
        (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id.term)
    };
    let leaders = alive.iter().filter_map(|(id, life)| Some((leads(life)?, *id)));
    leaders.max().map(|(_, id)| id)
}

/// Breaks and mends, until it is over.
async fn faults(world: Arc<World>, config: Arc<openraft::Config>, until: Instant) {
    let all: Vec<MemberId> = world.disks.keys().copied().collect();
    let any = |world: &World| all[world.dice(0..all.len() as u64) as usize];
    while Instant::now() < until {
        sleep(Duration::from_millis(world.dice(100..1_500))).await;
        let one = leader(&world).filter(|_| world.chance(0.5)).unwrap_or_else(|| any(&world));
        match world.dice(0..10) {
            0 | 1 => world.crash(one).await,
            2 => {
                for id in &all {
                    world.crash(*id).await;
                }
            }
            3 | 4 => {
                for other in all.iter().filter(|other| **other != one) {
                    let way = world.dice(0..4);
                    let mut cut = world.cut.lock();
                    if way != 0 {
                        cut.insert((one, *other));
                    }
                    if way != 1 {
                        cut.insert((*other, one));
                    }
                }
            }
            5 => {
                let other = any(&world);
                world.cut.lock().extend([(one, other), (other, one)]);
            }
            6 => *world.loss.lock() = world.dice(0..30) as f64 / 100.0,
            7 => {
                if let Some(life) = leader(&world).and_then(|id| world.alive(id)) {
                    // Refused when the other is not ready; that is no matter here.
                    let _ = life.raft.trigger().transfer_leader(any(&world)).await;
                }
            }
            8 => {
                if let Some(life) = leader(&world).and_then(|id| world.alive(id)) {
                    // Nobody, or one; who has no vote stays as a learner.
                    let gone = any(&world);
                    let voters = all.iter().copied().filter(|id| *id != gone || gone == one);
                    let voters: BTreeSet<MemberId> = voters.collect();
                    let change = life.raft.change_membership(voters, true);
                    let _ = timeout(Duration::from_millis(500), change).await;
                }
            }
            _ => {
                world.cut.lock().clear();
                *world.loss.lock() = 0.0;
            }
        }
        for id in &all {
            if world.alive(*id).is_none() && world.chance(0.5) {
                sleep(Duration::from_millis(world.dice(1..500))).await;
                world.start(*id, &config).await;
            }
        }
    }
}

/// Everything is mended: it must serve again, and all must agree.
async fn settle(clients: &Arc<Clients>, config: &Arc<openraft::Config>) {
    let world = &clients.world;
    world.cut.lock().clear();
    *world.loss.lock() = 0.0;
    for id in world.disks.keys() {
        if world.alive(*id).is_none() {
            world.start(*id, config).await;
        }
    }
    let until = Instant::now() + CONVERGENCE;
    for client in 1..=CLIENTS {
        clients.write(client, until).await;
    }
    if Instant::now() >= until {
        return world.violation("no write is acknowledged after everything was mended".into());
    }
    let everybody = loop {
        let replicas: Vec<_> = world.alive.lock().values().map(|l| l.replica.clone()).collect();
        let applied: Vec<_> = replicas.iter().map(|replica| replica.applied()).collect();
        if applied.windows(2).all(|pair| pair[0] == pair[1]) {
            break replicas;
        }
        if Instant::now() >= until {
            return world.violation(format!("masters do not catch up: {applied:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    };
    let first = everybody[0].dump();
    if everybody.iter().any(|replica| replica.dump() != first) {
        world.violation("masters that have applied the same differ".into());
    }
    for client in 1..=CLIENTS {
        let known = clients.keys.lock().get(&client).copied().unwrap_or_default();
        clients.judge(client, known, everybody[0].get(&key(client)));
    }
}

/// What came of a life.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    violations: Vec<String>,
    acknowledged: u64,
    /// Of every acknowledgement with its time: equal when the lives were.
    digest: u64,
}

async fn live(seed: u64, defect: Defect) -> Outcome {
    let masters = if seed.is_multiple_of(3) { 5 } else { 3 };
    let world = World::new(seed, masters, defect);
    let members: Vec<InitialMember> = (1..=masters)
        .map(|id| InitialMember {
            name: format!("m{id}"),
            peer_url: format!("http://{id}"),
            client_url: String::new(),
        })
        .collect();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let options = Options {
        snapshot_every: 60,
        log_keep: 20,
        ..Options::new("simulated", "simulated", "m1", address, members)
    };
    let config = Arc::new(options.raft_config().expect("a configuration"));
    for id in world.disks.keys() {
        world.start(*id, &config).await;
    }
    let nodes: BTreeMap<MemberId, MemberInfo> =
        world.disks.keys().map(|id| (*id, MemberInfo::default())).collect();
    let first = world.alive(1).expect("it runs");
    first.raft.initialize(nodes).await.expect("a new cluster");
    let clients = Arc::new(Clients {
        world: Arc::clone(&world),
        keys: Mutex::default(),
        acknowledged: Mutex::default(),
        count: Mutex::default(),
    });
    let until = Instant::now() + LIFE;
    let mut tasks = Vec::new();
    for client in 1..=CLIENTS {
        tasks.push(Runtime::spawn(Arc::clone(&clients).run(client, until)));
    }
    tasks.push(Runtime::spawn(Arc::clone(&clients).leader_work(until)));
    tasks.push(Runtime::spawn(observe(Arc::clone(&world), until + CONVERGENCE)));
    faults(Arc::clone(&world), Arc::clone(&config), until).await;
    for task in tasks.drain(..tasks.len() - 1) {
        task.await.expect("no task panics");
    }
    settle(&clients, &config).await;
    let violations = world.violations.lock().clone();
    let digest = clients.acknowledged.lock().finish();
    let acknowledged = *clients.count.lock();
    Outcome { violations, acknowledged, digest }
}

fn run(seed: u64, defect: Defect) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(Runtime::scope(seed, live(seed, defect)))
}

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("QUORATE_SIMULATION_SEEDS").unwrap_or_default();
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    ends.map_or(0..12, |(first, end)| first..end)
}

#[test]
fn promises_hold_whatever_the_seed() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Mutex::new(seeds());
    let broken = Mutex::new(Vec::new());
    let acknowledged = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().next() else { return };
                    let outcome = run(seed, Defect::None);
                    *acknowledged.lock() += outcome.acknowledged;
                    if !outcome.violations.is_empty() {
                        broken.lock().push((seed, outcome.violations));
                    }
                }
            });
        }
    });
    let broken = broken.into_inner();
    assert!(broken.is_empty(), "{} seeds: {broken:#?}", broken.len());
    eprintln!("{} lives, {} writes acknowledged", seeds().count(), acknowledged.into_inner());
}

#[test]
fn a_seed_lives_the_same_life_again() {
    for seed in [1, 3] {
        let (one, other) = (run(seed, Defect::None), run(seed, Defect::None));
        assert_eq!(one, other);
        assert!(one.acknowledged > 100, "{one:?}");
    }
    assert_ne!(run(1, Defect::None).digest, run(2, Defect::None).digest);
}

/// The first seeds of which one shows the defect.
fn is_caught(defect: Defect, among: u64) {
    let caught = (0..among).find(|seed| !run(*seed, defect).violations.is_empty());
    assert!(caught.is_some(), "{defect:?} is not noticed by {among} seeds");
}

#[test]
fn writes_that_are_acknowledged_too_early_are_caught() {
    is_caught(Defect::EarlyAcknowledgement, 30);
}

#[test]
fn votes_that_are_not_synced_are_caught() {
    is_caught(Defect::ForgottenVote, 60);
}

#[test]
fn reads_that_ask_nobody_are_caught() {
    is_caught(Defect::LocalReads, 30);
}
