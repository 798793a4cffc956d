//! How many pods a second are decided about, by size of the cluster: `make bench-scheduler`.
//!
//! Only deciding is measured (queue, decision, taking it for done), on one thread; binding is
//! measured end to end by `make bench-scale`. Prints a table, and writes JSON to the file named
//! by `--json`. `cargo test` runs it with a small cluster, to see that it works.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_scheduler::decide::{Policy, decide_class};
use quorate_scheduler::queue::Queue;
use quorate_scheduler::{ClusterSnapshot, Outcome};
use serde_json::{Value, json};

/// Nodes that all figures are for, smallest first.
const SIZES: [usize; 3] = [500, 1_000, 5_000];
/// Pods of one owner.
const REPLICAS: usize = 100;
const ZONES: usize = 3;
/// Cost per pod may grow this much from the smallest to the largest cluster.
const GROWTH: f64 = 2.0;

/// What the pods of a run are like.
#[derive(Clone, Copy, PartialEq)]
enum Workload {
    Plain,
    AntiAffinity,
    SpreadZones,
    SpreadHosts,
    NodesNearlyFull,
    Preemption,
}

const WORKLOADS: [Workload; 6] = [
    Workload::Plain,
    Workload::AntiAffinity,
    Workload::SpreadZones,
    Workload::SpreadHosts,
    Workload::NodesNearlyFull,
    Workload::Preemption,
];

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain pods",
            Self::AntiAffinity => "required anti-affinity (host)",
            Self::SpreadZones => "topology spread (zone)",
            Self::SpreadHosts => "topology spread (host)",
            Self::NodesNearlyFull => "9 of 10 nodes full",
            Self::Preemption => "preemption",
        }
    }

    /// Pods a second to be reached.
    fn floor(self) -> f64 {
        match self {
            Self::Plain => 10_000.0,
            Self::AntiAffinity | Self::SpreadZones | Self::SpreadHosts => 2_000.0,
            Self::NodesNearlyFull | Self::Preemption => 1_000.0,
        }
    }

    /// Pods to be decided about in a cluster of so many nodes.
    fn pods(self, nodes: usize) -> usize {
        match self {
            Self::Preemption => nodes.min(2_000),
            Self::NodesNearlyFull => nodes.min(2_000),
            _ => nodes * 5,
        }
    }

    fn pod(self, number: usize) -> Pod {
        let owner = number / REPLICAS;
        let mut value = json!({
            "metadata": {
                "namespace": "default", "name": format!("app{owner}-{number}"),
                "uid": format!("00000000-0000-4000-8000-{number:012}"),
                "labels": {"app": format!("app{owner}"), "pod-template-hash": "5d4f8c7b9"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": format!("app{owner}"), "uid": format!("rs-{owner}"), "controller": true}],
            },
            "spec": {"containers": [{"name": "c", "image": "app:1", "resources": {
                "requests": {"cpu": "100m", "memory": "128Mi"},
            }}]},
        });
        let selector = json!({"matchLabels": {"app": format!("app{owner}")}});
        let spread = |key: &str| {
            json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": selector}])
        };
        match self {
            Self::Plain | Self::NodesNearlyFull => {}
            Self::AntiAffinity => {
                value["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                    json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]);
            }
            Self::SpreadZones => {
                value["spec"]["topologySpreadConstraints"] = spread("topology.kubernetes.io/zone");
            }
            Self::SpreadHosts => {
                value["spec"]["topologySpreadConstraints"] = spread("kubernetes.io/hostname");
            }
            Self::Preemption => {
                value["spec"]["priority"] = json!(1_000);
                value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1500m");
            }
        }
        serde_json::from_value(value).unwrap()
    }
}

fn node(number: usize) -> Node {
    let name = format!("node-{number:05}");
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", number % ZONES),
        }},
        "status": {
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
    .unwrap()
}

/// A pod that is there already.
fn resident(number: usize, node: usize, cpu: &str) -> Pod {
    let mut value: Value = serde_json::to_value(Workload::Plain.pod(number)).unwrap();
    value["metadata"]["name"] = json!(format!("resident-{number}"));
    value["metadata"]["uid"] = json!(format!("resident-{number}"));
    value["metadata"]["labels"] = json!({"app": format!("resident{}", number / REPLICAS)});
    value["spec"]["nodeName"] = json!(format!("node-{node:05}"));
    value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
    serde_json::from_value(value).unwrap()
}

fn cluster(workload: Workload, nodes: usize) -> ClusterSnapshot {
    let mut snapshot = ClusterSnapshot::new();
    for number in 0..nodes {
        snapshot.set_node(&node(number));
    }
    let (per_node, cpu, share) = match workload {
        // All processors are taken.
        Workload::Preemption => (16, "1", 1),
        Workload::NodesNearlyFull => (16, "1", 10),
        _ => (10, "100m", 1),
    };
    for number in 0..nodes {
        if share == 1 || number % share != 0 {
            for n in 0..per_node {
                snapshot.set_pod(&resident(number * per_node + n, number, cpu));
            }
        }
    }
    snapshot
}

struct Figure {
    nodes: usize,
    pods: usize,
    placed: usize,
    preempting: usize,
    took: Duration,
}

impl Figure {
    fn per_second(&self) -> f64 {
        self.pods as f64 / self.took.as_secs_f64()
    }

    fn micros(&self) -> f64 {
        self.took.as_secs_f64() * 1e6 / self.pods as f64
    }
}

fn measure(workload: Workload, nodes: usize) -> Figure {
    let mut snapshot = cluster(workload, nodes);
    let pods: Vec<Arc<Pod>> =
        (0..workload.pods(nodes)).map(|number| Arc::new(workload.pod(number))).collect();
    let policy = Policy::default();
    let mut queue = Queue::new(Duration::from_secs(1), Duration::from_secs(10));
    let mut figure =
        Figure { nodes, pods: pods.len(), placed: 0, preempting: 0, took: Duration::ZERO };
    let start = Instant::now();
    for pod in &pods {
        let class = snapshot.class_of(pod);
        queue.upsert(Arc::clone(pod), 1, class);
    }
    while let Some((key, waiting)) = queue.pop() {
        let decision = decide_class(&mut snapshot, &policy, &key, &waiting.class);
        if let Outcome::Node(node) = &decision.outcome {
            snapshot.assume(key.clone(), &waiting.class, node);
            figure.placed += 1;
        }
        if let Some(preemption) = &decision.preemption {
            snapshot.preempt(&key, &waiting.class, preemption);
            figure.preempting += 1;
        }
        queue.remove(&key);
    }
    figure.took = start.elapsed();
    figure
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = !arguments.iter().any(|argument| argument == "--bench");
    let json = arguments.iter().position(|a| a == "--json").and_then(|at| arguments.get(at + 1));
    let sizes: &[usize] = if quick { &[50] } else { &SIZES };
    println!(
        "{:<32}{:>7}{:>8}{:>11}{:>9}{:>9}",
        "pods", "nodes", "pods", "pods/s", "µs/pod", "floor"
    );
    let mut rows = Vec::new();
    let mut missed = Vec::new();
    for workload in WORKLOADS {
        let figures: Vec<Figure> = sizes.iter().map(|nodes| measure(workload, *nodes)).collect();
        for figure in &figures {
            println!(
                "{:<32}{:>7}{:>8}{:>11.0}{:>9.1}{:>9.0}",
                workload.name(),
                figure.nodes,
                figure.pods,
                figure.per_second(),
                figure.micros(),
                workload.floor()
            );
            let decided =
                if workload == Workload::Preemption { figure.preempting } else { figure.placed };
            assert_eq!(decided, figure.pods, "{}: every pod finds its place", workload.name());
            rows.push(json!({
                "workload": workload.name(), "nodes": figure.nodes, "pods": figure.pods,
                "pods_per_second": figure.per_second().round(), "micros_per_pod": figure.micros(),
                "floor": workload.floor(),
            }));
        }
        let (first, last) = (&figures[0], &figures[figures.len() - 1]);
        let growth = last.micros() / first.micros();
        if last.per_second() < workload.floor() || growth > GROWTH {
            missed.push(format!("{}: growth {growth:.2}", workload.name()));
        }
        println!("{:<32}{growth:>44.2} times the cost at {} nodes", "", first.nodes);
    }
    let machine = std::thread::available_parallelism().map_or(0, usize::from);
    let report =
        json!({"bench": "scheduler", "processors": machine, "figures": rows, "missed": missed});
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&report).unwrap()).unwrap();
        println!("written to {path}");
    }
    if !quick {
        println!(
            "{}",
            if missed.is_empty() {
                "all floors reached".into()
            } else {
                format!("missed: {missed:?}")
            }
        );
    }
}
