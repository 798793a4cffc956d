//! How long does it take after the leader is gone until clients are served again? The same
//! measurement for Quorate and for etcd, by the same client, on the same machine, in one run.

mod bound;
mod etcd_cluster;
mod probe;
mod system;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_testkit::wait_for;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::history::Nanos;
use probe::Probe;
use system::System;

/// Longest time that is waited for anything.
const LIMIT: Duration = Duration::from_secs(30);
/// How long after the first answer the probe goes on looking for failed writes.
const AFTERMATH: Duration = Duration::from_millis(700);

/// What happens to the leader.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// SIGKILL.
    Kill,
    /// SIGTERM: an orderly end.
    Terminate,
    /// Its host is cut off from everybody, silently.
    Cut,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Cut => "cut off",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often, per way.
    pub kills: usize,
    /// What happens to the leader.
    pub how: Vec<How>,
    /// Measure etcd too?
    pub etcd: bool,
    /// Measure until the next pod is bound too? Needs hollow nodes.
    pub pods: bool,
}

/// One series: system, what happened, what was waited for, milliseconds in order of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// `quorate` or `etcd`
    pub system: String,
    /// What happened to the leader.
    pub how: How,
    /// What was waited for.
    pub what: String,
    /// Milliseconds.
    pub millis: Vec<f64>,
}

/// All series of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// One per system, way and goal.
    pub series: Vec<Series>,
    /// Writes that were not acknowledged after an orderly end, by system.
    pub failed_writes: BTreeMap<String, u64>,
}

/// Measures.
///
/// # Errors
/// When a cluster does not come up, or does not recover in time.
pub async fn measure(options: &Options) -> Result<Figures> {
    let mut figures = Figures::default();
    let mut systems = vec!["quorate"];
    if options.etcd {
        systems.push("etcd");
    }
    for how in &options.how {
        for system in &systems {
            let pods = options.pods && *system == "quorate";
            let mut system = System::start(system, *how == How::Cut, pods).await?;
            series(&mut system, *how, options, &mut figures).await?;
        }
    }
    Ok(figures)
}

async fn series(
    system: &mut System,
    how: How,
    options: &Options,
    figures: &mut Figures,
) -> Result<()> {
    let probe = Probe::start(system).await?;
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for number in 1..=options.kills {
        system.wait_ready().await?;
        // Not always at the same moment of the heartbeat's interval.
        let pause = rand::rng().random_range(300..900);
        sleep(Duration::from_millis(pause)).await;
        let leader = system.leader().await?;
        let moment = probe.begin();
        system.strike(&leader, how).await?;
        let what = format!("{} after {} of {leader}", system.name(), how.name());
        let (seen, _) =
            wait_for(&what, LIMIT, async || probe.seen(moment).context("not yet")).await?;
        sleep(AFTERMATH).await;
        let (gap, failed) = probe.aftermath(moment);
        found.entry("write").or_default().push(millis(seen.write));
        found.entry("watch event").or_default().push(millis(seen.event));
        found.entry("gap between writes").or_default().push(millis(gap));
        if let Some(bound) = seen.bound {
            found.entry("bound pod").or_default().push(millis(bound));
        }
        if how == How::Terminate {
            let count = figures.failed_writes.entry(system.name().to_owned()).or_default();
            *count += failed.len() as u64;
            failed.iter().for_each(|why| eprintln!("  a write failed: {why}"));
        }
        eprintln!(
            "{} {} {number}/{}: write {:.0} ms, event {:.0} ms{}, gap {:.0} ms, {} failed",
            system.name(),
            how.name(),
            options.kills,
            millis(seen.write),
            millis(seen.event),
            seen.bound.map(|b| format!(", bound pod {:.0} ms", millis(b))).unwrap_or_default(),
            millis(gap),
            failed.len()
        );
        system.mend(&leader, how).await?;
    }
    probe.stop().await;
    let name = system.name().to_owned();
    figures.series.extend(found.into_iter().map(|(what, millis)| Series {
        system: name.clone(),
        how,
        what: what.to_owned(),
        millis,
    }));
    Ok(())
}

fn millis(nanos: Nanos) -> f64 {
    nanos as f64 / 1e6
}

impl Series {
    /// The value that this share of all is not above.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.millis.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

impl Figures {
    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<8} {:<8} {:<20} {:>4} {:>8} {:>8} {:>8} {:>8}\n",
            "system", "leader", "until the next", "n", "p50 ms", "p95 ms", "p99 ms", "max ms"
        );
        for series in &self.series {
            let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| series.percentile(share));
            let _ = writeln!(
                text,
                "{:<8} {:<8} {:<20} {:>4} {p50:>8.0} {p95:>8.0} {p99:>8.0} {max:>8.0}",
                series.system,
                series.how.name(),
                series.what,
                series.millis.len()
            );
        }
        for (system, failed) in &self.failed_writes {
            let _ = writeln!(text, "{system}: {failed} writes failed around SIGTERM");
        }
        text
    }
}

#[cfg(test)]
#[path = "failover_test.rs"]
mod tests;
