//! What many keys cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_testkit::wait_for;

use crate::client::{self, Kv};
use crate::report::Report;
use crate::servers::Servers;
use crate::workload::{self, Workload};

/// Clients of the loads before and after.
const CLIENTS: usize = 64;
/// Longest time until a new member has everything.
const PATIENCE: Duration = Duration::from_secs(300);

/// Fills the store, and measures it before and after; `time` is that of one load.
pub async fn measure(
    servers: &mut Servers,
    keys: usize,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let kind = servers.kind;
    let label = |what: &str| format!("{keys} keys: {what}");
    let loads = [Workload::Put, Workload::LinearizableGet];
    let mut before = Vec::new();
    for load in loads {
        let done = workload::run(&servers.urls, load, CLIENTS, time).await?;
        before.push(done.latencies.quantile(0.5));
    }
    let loading = Instant::now();
    workload::fill(&servers.urls, keys).await?;
    report.add(kind, &label("load"), "s", loading.elapsed().as_secs_f64());
    report.add(kind, &label("on disk, three servers"), "MB", servers.disk_mb());
    report.add(kind, &label("memory, three servers"), "MB", servers.resident_mb());
    for (load, before) in loads.into_iter().zip(before) {
        let done = workload::run(&servers.urls, load, CLIENTS, time).await?;
        let after = done.latencies.quantile(0.5);
        report.add(
            kind,
            &label(&format!("{load}, {CLIENTS} clients: rate")),
            "/s",
            done.per_second(),
        );
        report.add(
            kind,
            &label(&format!("{load}: median, times that of few keys")),
            "x",
            after / before,
        );
    }
    let restarting = Instant::now();
    servers.restart().await?;
    report.add(kind, &label("restart of all to serving"), "s", restarting.elapsed().as_secs_f64());
    let joining = Instant::now();
    let url = servers.replace_one().await?;
    wait_for("a new member with all keys", PATIENCE, async || {
        let mut kv = Kv::new(client::connect(&url).await?);
        let found = kv.range(client::count()).await?.into_inner().count;
        ensure!(usize::try_from(found).is_ok_and(|found| found >= keys), "{found} keys");
        Ok(())
    })
    .await?;
    report.add(kind, &label("a new member has all"), "s", joining.elapsed().as_secs_f64());
    Ok(())
}
