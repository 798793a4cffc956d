//! What processes have used of processors.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use quorate_testkit::TestCluster;
use serde_json::{Map, Value};

use crate::rounded;

/// Linux' USER_HZ.
const TICKS: f64 = 100.0;

/// Processor time in seconds, up to a moment.
pub struct Usage {
    at: Instant,
    masters: BTreeMap<String, f64>,
    agents: f64,
    bench: f64,
    /// Of the whole machine, whoever used it.
    machine: f64,
}

impl Usage {
    /// Up to now.
    pub fn now(cluster: &TestCluster) -> Result<Self> {
        let file = cluster.file()?;
        let mut usage = Self {
            at: Instant::now(),
            masters: BTreeMap::new(),
            agents: 0.0,
            bench: 0.0,
            machine: 0.0,
        };
        for (name, pid) in cluster.pids()? {
            let used = of_process(&pid.to_string())?;
            if file.masters.iter().any(|master| master.name == name) {
                usage.masters.insert(name, used);
            } else if file.nodes.iter().any(|node| node.name == name) {
                usage.agents += used;
            }
        }
        usage.bench = of_process("self")?;
        usage.machine = of_machine()?;
        Ok(usage)
    }

    /// What was used in between.
    pub fn since(mut self, before: &Self) -> Spent {
        for (name, used) in &mut self.masters {
            *used -= before.masters.get(name).copied().unwrap_or_default();
        }
        Spent {
            seconds: self.at.duration_since(before.at).as_secs_f64(),
            masters: self.masters,
            agents: self.agents - before.agents,
            bench: self.bench - before.bench,
            machine: self.machine - before.machine,
        }
    }
}

/// Processor time in seconds, between two moments.
pub struct Spent {
    seconds: f64,
    masters: BTreeMap<String, f64>,
    agents: f64,
    bench: f64,
    machine: f64,
}

impl Spent {
    /// By process and pod, and of what the machine has. Names begin with `prefix`.
    pub fn figures(&self, prefix: &str, leader: &str, pods: usize) -> Value {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let of_leader = self.masters.get(leader).copied().unwrap_or_default();
        let masters: f64 = self.masters.values().sum();
        let followers = (self.masters.len().max(2) - 1) as f64;
        let ours = masters + self.agents + self.bench;
        let per_pod = |seconds: f64| rounded(seconds * 1e3 / pods as f64);
        let percent = |seconds: f64| (seconds * 100.0 / self.seconds / processors).round();
        let mut figures = Map::new();
        for (name, value) in [
            ("leader_processor_ms_per_pod", per_pod(of_leader)),
            ("each_follower_processor_ms_per_pod", per_pod((masters - of_leader) / followers)),
            ("agents_processor_ms_per_pod", per_pod(self.agents)),
            ("bench_processor_ms_per_pod", per_pod(self.bench)),
            ("all_processor_ms_per_pod", per_pod(ours)),
            ("processors_used_percent", percent(ours)),
            ("processors_used_by_others_percent", percent((self.machine - ours).max(0.0))),
        ] {
            figures.insert(format!("{prefix}{name}"), value.into());
        }
        figures.into()
    }
}

fn of_process(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain spaces; utime and stime are the 12th and 13th fields
    // behind it.
    let rest = stat.rsplit_once(')').context("no process")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|t| t.parse::<f64>().ok());
    Ok([11, 12].into_iter().filter_map(ticks).sum::<f64>() / TICKS)
}

/// Everything but idling and waiting for disks.
fn of_machine() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|t| t.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|index| ticks.get(index));
    Ok(busy.sum::<f64>() / TICKS)
}
