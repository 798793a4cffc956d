//! What the node and its containers use: measured regularly, told to every master.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use quorate_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::agent::Internal;
use crate::runtime::{Record, Role, RunState, Runtime};

/// Between two measurements.
const ROUND: Duration = Duration::from_secs(10);
/// On hollow nodes, of which there may be thousands.
const HOLLOW_ROUND: Duration = Duration::from_secs(20);
/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICK_NANOS: u64 = 10_000_000;

/// Measures for as long as the agent runs. A measurement that fails is left out.
pub fn measure(runtime: Arc<dyn Runtime>, out: mpsc::Sender<Internal>, cancel: CancellationToken) {
    let work = async move {
        let round = if runtime.runs_processes() { ROUND } else { HOLLOW_ROUND };
        let mut meter = Meter::default();
        // Thousands of nodes that start together do not measure together.
        tokio::time::sleep(round.mul_f64(rand::random_range(0.0..0.5))).await;
        let mut ticks = tokio::time::interval(round);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !out.is_closed() {
            ticks.tick().await;
            match meter.measure(runtime.as_ref()).await {
                Ok(Some(report)) => drop(out.send(Internal::Usage(report)).await),
                Ok(None) => {}
                Err(error) => debug!(%error, "cannot measure"),
            }
        }
    };
    // Task "usage": ends with the agent.
    tokio::spawn(cancel.run_until_cancelled_owned(work));
}

/// Remembers processor times, which become rates by the next measurement.
#[derive(Default)]
struct Meter {
    containers: HashMap<String, u64>,
    node: u64,
    last: Option<Instant>,
}

impl Meter {
    /// None when there is nothing to compare with, or nothing runs on a hollow node.
    async fn measure(
        &mut self,
        runtime: &dyn Runtime,
    ) -> Result<Option<v1::UsageReport>, crate::runtime::RuntimeError> {
        let works = |r: &Record| r.role != Role::Sandbox && r.state == RunState::Running;
        let records: Vec<Record> = runtime.list(None).await?.into_iter().filter(works).collect();
        if records.is_empty() && !runtime.runs_processes() {
            self.containers.clear();
            return Ok(None);
        }
        let ids: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
        let samples = runtime.samples(&ids).await?;
        let now = Instant::now();
        let before = self.last.replace(now);
        let old = std::mem::take(&mut self.containers);
        self.containers = samples.iter().map(|s| (s.id.clone(), s.cpu_nanos)).collect();
        let machine = runtime.runs_processes().then(machine);
        let node_before = std::mem::replace(&mut self.node, machine.map_or(0, |m| m.0));
        let Some(window) = before.map(|before| now - before).filter(|w| !w.is_zero()) else {
            return Ok(None);
        };
        let mut pods: Vec<v1::PodUsage> = Vec::new();
        for sample in &samples {
            let Some(record) = records.iter().find(|record| record.id == sample.id) else {
                continue;
            };
            let Some(before) = old.get(&sample.id) else { continue };
            let usage = v1::Usage {
                cpu_nanocores: rate(*before, sample.cpu_nanos, window),
                memory_bytes: sample.memory_bytes,
            };
            let container =
                v1::ContainerUsage { name: record.container.clone(), usage: Some(usage) };
            match pods.iter_mut().find(|pod| pod.uid == record.pod.uid) {
                Some(pod) => pod.containers.push(container),
                None => pods.push(v1::PodUsage {
                    namespace: record.pod.namespace.clone(),
                    name: record.pod.name.clone(),
                    uid: record.pod.uid.clone(),
                    containers: vec![container],
                }),
            }
        }
        let node = match machine {
            Some((busy, memory_bytes)) => {
                v1::Usage { cpu_nanocores: rate(node_before, busy, window), memory_bytes }
            }
            None => sum(&pods),
        };
        Ok(Some(v1::UsageReport {
            time_ms: since_epoch(),
            window_ms: u32::try_from(window.as_millis()).unwrap_or(u32::MAX),
            node: Some(node),
            pods,
        }))
    }
}

/// Billionths of a core, of nanoseconds within a time.
fn rate(before: u64, after: u64, window: Duration) -> u64 {
    let used = u128::from(after.saturating_sub(before));
    u64::try_from(used * 1_000_000_000 / window.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn sum(pods: &[v1::PodUsage]) -> v1::Usage {
    let all = pods.iter().flat_map(|pod| &pod.containers).filter_map(|c| c.usage.as_ref());
    all.fold(v1::Usage::default(), |total, one| v1::Usage {
        cpu_nanocores: total.cpu_nanocores + one.cpu_nanocores,
        memory_bytes: total.memory_bytes + one.memory_bytes,
    })
}

fn since_epoch() -> u64 {
    u64::try_from(quorate_objects::time::timestamp().as_millisecond()).unwrap_or_default()
}

/// Nanoseconds that the machine's processors were busy, and bytes of memory in use.
fn machine() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (busy_nanos(&stat), used_bytes(&memory))
}

fn busy_nanos(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let numbers: Vec<u64> =
        line.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted as user already.
    let busy = numbers.iter().enumerate().take(8).filter(|(i, _)| ![3, 4].contains(i));
    busy.map(|(_, ticks)| ticks).sum::<u64>().saturating_mul(TICK_NANOS)
}

fn used_bytes(meminfo: &str) -> u64 {
    let kib = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let (total, available) = (kib("MemTotal:"), kib("MemAvailable:"));
    total.unwrap_or(0).saturating_sub(available.unwrap_or(0)) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::hollow::Hollow;

    #[test]
    fn the_machines_figures_are_read() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_nanos(stat), (10 + 1 + 5 + 2 + 3 + 4) * TICK_NANOS);
        let memory = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\n";
        assert_eq!(used_bytes(memory), 600 * 1024);
        let (busy, used) = machine();
        assert!(busy > 0 && used > 0);
    }

    #[test]
    fn rates_are_billionths_of_a_core() {
        assert_eq!(rate(0, 500_000_000, Duration::from_secs(1)), 500_000_000);
        assert_eq!(rate(1_000, 3_000, Duration::from_micros(1)), 2_000_000_000);
        assert_eq!(rate(5, 3, Duration::from_secs(1)), 0, "a container began anew");
    }

    #[tokio::test]
    async fn a_hollow_node_without_pods_says_nothing() {
        let mut meter = Meter::default();
        let hollow = Hollow::new(Arc::default());
        assert_eq!(meter.measure(&hollow).await.unwrap(), None);
    }
}
