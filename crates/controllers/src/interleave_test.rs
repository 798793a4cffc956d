//! Controllers under random interleavings, with a leader that dies between any two of its writes.
//!
//! Nothing runs by itself here: one seeded loop decides which controller looks at which key
//! next, which node's agent takes a step, which pod is bound, when a user changes something, and
//! after which write the leader is deposed. What every state of the store must satisfy is
//! checked at every change; in the end all seeds of a scenario must reach the same state.
//!
//! `QUORATE_SEED` and `QUORATE_CASES` choose the seeds; a failure prints its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_objects::{Selector, kinds, pod};
use quorate_registry::{DeleteOptions, EventKind, ObjectEvent, ObjectWatcher, Propagation, Write};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::context::Context;
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::fake::{self, Cluster};
use crate::queue::Key;

const CASES: u64 = 40;
/// Steps after the user's last change within which the end must be reached.
const STEPS_MAX: usize = 20_000;

/// A user's change.
#[derive(Clone)]
enum Change {
    Create(Value),
    /// Sets `spec.<field>` of the scenario's object.
    Set(&'static str, Value),
    Image(&'static str),
    /// Deletes some pod.
    Kill,
    /// Deletes the scenario's object.
    Delete(Propagation),
    AddNode(&'static str),
}

struct Scenario {
    name: &'static str,
    kind: &'static quorate_objects::Kind,
    changes: Vec<Change>,
    /// Holds in every state: all pods that exist.
    always: fn(&BTreeMap<String, Arc<Pod>>),
    /// The end.
    /// Gets the pods too that have succeeded while their Job held them for counting.
    done: fn(&Cluster, &BTreeSet<String>) -> bool,
}

struct Working {
    controller: Arc<dyn Controller>,
    context: Arc<Context>,
    keys: BTreeSet<Key>,
}

struct Simulation {
    cluster: Cluster,
    rng: StdRng,
    nodes: Vec<String>,
    working: Vec<Working>,
    events: ObjectWatcher,
    pods: BTreeMap<String, Arc<Pod>>,
    succeeded: BTreeSet<String>,
    restarts: usize,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let cluster = Cluster::new(0).await;
        let from = cluster.registry.cache().revision();
        let events = cluster.registry.watch(None, None, Selector::everything(), from).unwrap();
        let mut this = Self {
            cluster,
            rng: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            working: Vec::new(),
            events,
            pods: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            restarts: 0,
        };
        for name in ["n1", "n2", "n3"] {
            this.add_node(name).await;
        }
        this.restart();
        this
    }

    async fn add_node(&mut self, name: &str) {
        self.cluster.create(fake::node(name)).await;
        self.nodes.push(name.to_owned());
    }

    /// A new leader: all that the one before had in memory is lost.
    fn restart(&mut self) {
        self.restarts += 1;
        let mut options = fake::options();
        options.job_back_off = std::time::Duration::ZERO;
        let all = crate::leader::controllers(&self.cluster.registry, self.cluster.term(), &options);
        // Those that go by the clock are tested elsewhere.
        let clocked =
            ["node-lifecycle", "taint-eviction", "pod-collector", "horizontalpodautoscaler"];
        let all = all.into_iter().filter(|(c, _)| !clocked.contains(&c.name()));
        self.working = all
            .map(|(controller, context)| {
                let keys = controller.all().into_iter().collect();
                Working { controller, context, keys }
            })
            .collect();
    }

    /// Hands out what has happened, and checks every state on the way.
    async fn observe(&mut self, always: fn(&BTreeMap<String, Arc<Pod>>)) {
        self.cluster.settle().await;
        while let Some(event) = self.next_event() {
            let Some(object) = &event.object else { continue };
            if *object.kind == kinds::POD {
                if event.kind == EventKind::Deleted {
                    self.pods.remove(object.name());
                } else {
                    let held = object.meta.finalizers.iter().flatten().next().is_some();
                    if held && object.field("status.phase") == Some("Succeeded") {
                        self.succeeded.insert(object.uid().to_owned());
                    }
                    self.pods.insert(object.name().to_owned(), object.typed().unwrap());
                }
                always(&self.pods);
            }
            for one in &mut self.working {
                one.keys.extend(one.controller.wants(&event));
            }
        }
    }

    fn next_event(&mut self) -> Option<ObjectEvent> {
        // The cache is up to date: what there is comes without waiting.
        self.events.next().now_or_never().map(Result::unwrap)
    }

    async fn reconcile(&mut self) {
        let busy: Vec<usize> =
            (0..self.working.len()).filter(|n| !self.working[*n].keys.is_empty()).collect();
        let Some(place) = busy.choose(&mut self.rng).copied() else { return };
        let one = &mut self.working[place];
        let which = self.rng.random_range(0..one.keys.len());
        let key = one.keys.iter().nth(which).cloned().unwrap();
        one.keys.remove(&key);
        let (controller, context) = (Arc::clone(&one.controller), Arc::clone(&one.context));
        if self.rng.random_bool(0.1) {
            self.cluster.store.depose_after(self.rng.random_range(0..4));
        }
        context.caught_up().await.unwrap();
        match controller.reconcile(&key).await {
            Ok(Requeue::Done) => {}
            Err(ControllerError::Fenced(_)) => self.restart(),
            Ok(Requeue::After(_)) | Err(_) => {
                self.working[place].keys.insert(key);
            }
        }
    }

    /// Binds a pod, as the scheduler would.
    async fn bind(&mut self) {
        let unbound: Vec<_> = self.pods.values().filter(|p| pod::node_name(p).is_none()).collect();
        let Some(object) = unbound.choose(&mut self.rng).map(|pod| Arc::clone(pod)) else { return };
        let spec = object.spec.as_ref().unwrap();
        let allowed = |name: &&String| {
            // A node that has just been added may not have shown yet.
            let node = self.cluster.registry.cache().get(&kinds::NODE, "", name);
            let node = node.and_then(|node| node.typed::<Node>().ok());
            node.is_some_and(|node| quorate_objects::affinity::allows(spec, &node))
        };
        let allowed: Vec<&String> = self.nodes.iter().filter(allowed).collect();
        let Some(node) = allowed.choose(&mut self.rng) else { return };
        let bind = Write::Bind {
            namespace: "default".into(),
            name: object.metadata.name.clone().unwrap(),
            uid: object.metadata.uid.clone().unwrap(),
            revision: None,
            node: (*node).clone(),
        };
        // It may be gone meanwhile.
        self.cluster.registry.write_batch(vec![bind], None).await;
    }

    async fn change(&mut self, scenario: &Scenario, change: Change) {
        let set = |pointer: &'static str, value: Value| {
            self.cluster.change(scenario.kind, "web", move |object| {
                let (parent, field) = pointer.rsplit_once('/').unwrap();
                object.pointer_mut(parent).unwrap()[field] = value.clone();
            })
        };
        match change {
            Change::Create(value) => {
                self.cluster.create(value).await;
            }
            Change::Set(pointer, value) => set(pointer, value).await,
            Change::Image(image) => {
                set("/spec/template/spec/containers/0/image", json!(image)).await;
            }
            Change::Kill => {
                let names: Vec<String> = self.pods.keys().cloned().collect();
                if let Some(name) = names.choose(&mut self.rng) {
                    let options = DeleteOptions::default();
                    // It may be gone meanwhile.
                    let _ =
                        self.cluster.registry.delete(&kinds::POD, "default", name, &options).await;
                }
            }
            Change::Delete(propagation) => {
                let options = DeleteOptions { propagation, ..DeleteOptions::default() };
                self.cluster.delete(scenario.kind, "web", options).await;
            }
            Change::AddNode(name) => self.add_node(name).await,
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..70 => self.reconcile().await,
            70..84 => {
                let node = self.nodes.choose(&mut self.rng).unwrap().clone();
                fake::agent_step(&self.cluster.registry, &node, &Default::default()).await;
            }
            84..98 => self.bind().await,
            98 => {
                for one in &mut self.working {
                    one.keys.extend(one.controller.all());
                }
            }
            _ => {
                self.cluster.store.set_term(self.cluster.term() + 1);
                self.restart();
            }
        }
    }

    async fn run(&mut self, scenario: &Scenario) {
        let mut changes = scenario.changes.iter().cloned();
        let first = changes.next().unwrap();
        self.change(scenario, first).await;
        for change in changes {
            for _ in 0..self.rng.random_range(0..60) {
                self.step().await;
                self.observe(scenario.always).await;
            }
            self.change(scenario, change).await;
        }
        for _ in 0..STEPS_MAX {
            self.step().await;
            self.observe(scenario.always).await;
            let idle = self.working.iter().all(|one| one.keys.is_empty());
            if idle && (scenario.done)(&self.cluster, &self.succeeded) {
                return;
            }
        }
        panic!("the end was not reached:\n{}", self.cluster.dump());
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Runs a scenario with many seeds.
fn run(scenario: &Scenario) {
    let (first, cases) = (number("QUORATE_SEED", 1), number("QUORATE_CASES", CASES));
    let mut restarts = 0;
    for seed in first..first + cases {
        let case = std::panic::AssertUnwindSafe(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut simulation = Simulation::new(seed).await;
                simulation.run(scenario).await;
                simulation.restarts
            })
        });
        match std::panic::catch_unwind(case) {
            Ok(count) => restarts += count,
            Err(panic) => {
                eprintln!("{}: failed with QUORATE_SEED={seed}", scenario.name);
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{}: {cases} cases from seed {first}, {restarts} leaders", scenario.name);
    assert!(restarts as u64 > cases, "no leader ever died");
}

fn active(pods: &BTreeMap<String, Arc<Pod>>) -> impl Iterator<Item = &Arc<Pod>> {
    pods.values().filter(|object| pod::is_active(object))
}

fn images(cluster: &Cluster) -> HashMap<String, usize> {
    let mut images = HashMap::new();
    for object in cluster.active() {
        let image = object.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        *images.entry(image).or_default() += 1;
    }
    images
}

#[test]
fn deployments() {
    let mut web = fake::deployment("web", 4, "a");
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    run(&Scenario {
        name: "deployments",
        kind: &kinds::DEPLOYMENT,
        changes: vec![
            Change::Create(web),
            Change::Image("b"),
            Change::Kill,
            Change::Set("/spec/replicas", json!(6)),
            Change::Image("a"),
            Change::Kill,
            Change::Set("/spec/replicas", json!(3)),
        ],
        always: |pods| {
            let count = active(pods).count();
            assert!(count <= 7, "{count} pods; never more than 6 + 1 were allowed");
        },
        done: |cluster, _| {
            cluster.ready() == 3
                && images(cluster) == HashMap::from([("a".to_owned(), 3)])
                && cluster.list(&kinds::POD).len() == 3
                && cluster.list(&kinds::REPLICA_SET).len() == 2
        },
    });
}

#[test]
fn stateful_sets() {
    run(&Scenario {
        name: "stateful sets",
        kind: &kinds::STATEFUL_SET,
        changes: vec![
            Change::Create(fake::stateful_set("web", 3, "a")),
            Change::Kill,
            Change::Image("b"),
            Change::Kill,
            Change::Set("/spec/replicas", json!(2)),
            Change::Image("c"),
            Change::Set("/spec/replicas", json!(4)),
        ],
        always: |pods| {
            for name in pods.keys() {
                let known = ["web-0", "web-1", "web-2", "web-3"].contains(&name.as_str());
                assert!(known, "{name} is no name of the set");
            }
        },
        done: |cluster, _| {
            let status = cluster.get(&kinds::STATEFUL_SET, "web").unwrap()["status"].clone();
            cluster.ready() == 4
                && images(cluster) == HashMap::from([("c".to_owned(), 4)])
                && cluster.list(&kinds::PERSISTENT_VOLUME_CLAIM).len() == 4
                && status["currentRevision"] == status["updateRevision"]
        },
    });
}

/// Claims go with pods that are scaled away, and pods that come back never get one that goes.
#[test]
fn stateful_sets_that_drop_claims() {
    let mut web = fake::stateful_set("web", 3, "a");
    web["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    run(&Scenario {
        name: "stateful sets that drop claims",
        kind: &kinds::STATEFUL_SET,
        changes: vec![
            Change::Create(web),
            Change::Kill,
            Change::Set("/spec/replicas", json!(1)),
            Change::Set("/spec/replicas", json!(3)),
            Change::Kill,
            Change::Set("/spec/replicas", json!(2)),
            Change::Set("/spec/replicas", json!(3)),
        ],
        always: |_| {},
        done: |cluster, _| {
            let set = cluster.get(&kinds::STATEFUL_SET, "web").unwrap();
            let stays = |claim: &Value| {
                let owners = claim["metadata"]["ownerReferences"].as_array();
                let owners =
                    owners.map(|all| all.iter().map(|one| &one["uid"]).collect::<Vec<_>>());
                owners == Some(vec![&set["metadata"]["uid"]])
                    && claim["metadata"]["deletionTimestamp"].is_null()
            };
            let claims = cluster.list(&kinds::PERSISTENT_VOLUME_CLAIM);
            cluster.ready() == 3 && claims.len() == 3 && claims.iter().all(stays)
        },
    });
}

#[test]
fn daemon_sets() {
    run(&Scenario {
        name: "daemon sets",
        kind: &kinds::DAEMON_SET,
        changes: vec![
            Change::Create(fake::daemon_set("web", "a")),
            Change::Kill,
            Change::Image("b"),
            Change::AddNode("n4"),
            Change::Kill,
            Change::Image("c"),
        ],
        always: |pods| {
            let mut nodes = BTreeSet::new();
            for object in pods.values().filter(|object| !pod::is_terminal(object)) {
                let Some(node) = pod::node_name(object) else { continue };
                assert!(nodes.insert(node), "two pods on {node}");
            }
        },
        done: |cluster, _| {
            cluster.ready() == 4
                && images(cluster) == HashMap::from([("c".to_owned(), 4)])
                && cluster.list(&kinds::POD).len() == 4
        },
    });
}

fn job_status(cluster: &Cluster, field: &str) -> Value {
    cluster.get(&kinds::JOB, "web").unwrap()["status"][field].clone()
}

fn is_complete(cluster: &Cluster) -> bool {
    let conditions = job_status(cluster, "conditions");
    let mut all = conditions.as_array().into_iter().flatten();
    all.any(|one| one["type"] == "Complete" && one["status"] == "True")
}

/// Every success counts once, wherever leaders die: exactly as many as asked for.
#[test]
fn jobs() {
    let spec = json!({"completions": 6, "parallelism": 3, "backoffLimit": 50});
    run(&Scenario {
        name: "jobs",
        kind: &kinds::JOB,
        changes: vec![
            Change::Create(fake::job("web", "exits:0", &spec)),
            Change::Kill,
            Change::Set("/spec/parallelism", json!(2)),
            Change::Set("/spec/suspend", json!(true)),
            Change::Set("/spec/suspend", json!(false)),
        ],
        always: |pods| {
            let count = active(pods).count();
            assert!(count <= 3, "{count} pods at work, never more than 3");
        },
        done: |cluster, held| {
            let done = is_complete(cluster)
                && job_status(cluster, "uncountedTerminatedPods").is_null()
                && cluster.active().is_empty();
            if done {
                assert_eq!(job_status(cluster, "succeeded"), json!(6));
                assert_eq!(held.len(), 6, "each success counts once, and none is forgotten");
            }
            done
        },
    });
}

#[test]
fn indexed_jobs() {
    let spec = json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed",
        "backoffLimit": 50});
    run(&Scenario {
        name: "indexed jobs",
        kind: &kinds::JOB,
        changes: vec![
            Change::Create(fake::job("web", "exits:0", &spec)),
            Change::Kill,
            Change::Kill,
        ],
        always: |pods| {
            let mut indexes = BTreeSet::new();
            for object in active(pods) {
                let labels = object.metadata.labels.as_ref().unwrap();
                let index = &labels[quorate_objects::job::COMPLETION_INDEX];
                assert!(indexes.insert(index.clone()), "two pods at work for index {index}");
            }
        },
        done: |cluster, _| {
            is_complete(cluster)
                && job_status(cluster, "completedIndexes") == json!("0-4")
                && job_status(cluster, "succeeded") == json!(5)
                && cluster.active().is_empty()
        },
    });
}

/// A Job that leaves its pods behind: whoever takes it out of them first, they are let go.
#[test]
fn orphans_of_jobs() {
    let spec = json!({"completions": 6, "parallelism": 3, "backoffLimit": 50});
    run(&Scenario {
        name: "orphans of jobs",
        kind: &kinds::JOB,
        changes: vec![
            Change::Create(fake::job("web", "exits:0", &spec)),
            Change::Kill,
            Change::Delete(Propagation::Orphan),
            Change::Kill,
        ],
        always: |pods| {
            let count = active(pods).count();
            assert!(count <= 3, "{count} pods at work, never more than 3");
        },
        done: |cluster, _| {
            let free = |pod: &Value| {
                let finalizers = pod["metadata"]["finalizers"].as_array();
                finalizers.is_none_or(Vec::is_empty)
                    && pod["metadata"]["deletionTimestamp"].is_null()
            };
            cluster.get(&kinds::JOB, "web").is_none() && cluster.list(&kinds::POD).iter().all(free)
        },
    });
}

/// Owners that go take everything along, and a quota is exact in the end.
#[test]
fn quotas() {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": "default"}, "spec": {"hard": {"pods": "3"}}});
    run(&Scenario {
        name: "quotas",
        kind: &kinds::DEPLOYMENT,
        changes: vec![
            Change::Create(quota),
            Change::Create(fake::deployment("web", 5, "a")),
            Change::Kill,
            Change::Image("b"),
            Change::Set("/spec/replicas", json!(2)),
        ],
        always: |pods| {
            let count = pods.values().filter(|object| !pod::is_terminal(object)).count();
            assert!(count <= 3, "{count} pods, and the quota is 3");
        },
        done: |cluster, _| {
            let used =
                cluster.get(&kinds::RESOURCE_QUOTA, "few").unwrap()["status"]["used"].clone();
            cluster.ready() == 2
                && images(cluster) == HashMap::from([("b".to_owned(), 2)])
                && used["pods"] == json!("2")
        },
    });
}
