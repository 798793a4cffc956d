//! After the faults: the cluster must reach its goals, and shows what it holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_client::ListOptions;
use quorate_objects::kinds::kinds;
use quorate_objects::{Kind, quantity};
use quorate_testkit::wait_for;

use super::{Window, pods};
use crate::evidence::{Convergence, MemberContents, Resources};
use crate::observer;
use crate::target::Target;
use crate::workload::{LOCKS, Running};

/// How long the cluster may take, once everything is mended, for each of its goals.
const CONVERGENCE: Duration = Duration::from_secs(30);
/// The same for every goal after one that was missed.
const AFTER_A_MISS: Duration = Duration::from_secs(2);

impl Window<'_> {
    /// Everything is mended: the cluster must reach its goals, and shows what it holds.
    pub(super) async fn settle(&mut self, running: &mut Running) -> Result<()> {
        if let Some(links) = self.target.cluster().links() {
            links.heal();
        }
        self.target.heal_disks();
        let target = self.target.clone();
        self.goal("every process runs, a master leads, nodes are ready", async || {
            target.cluster().heal().await
        })
        .await;
        self.goal("the leader does its work", async || {
            let leader = target.leader().await?;
            let work = target.observer_of(&leader)?.status().await?.leader_work_running;
            ensure!(work, "{leader} leads, and neither schedules nor controls");
            Ok(())
        })
        .await;
        running.stop_clients().await;
        let client = self.target.client(0)?;
        let book = Arc::clone(&self.book);
        let mut marker = None;
        self.goal("a write is acknowledged", async || {
            marker = Some(book.mark(&client, target.etcd(0)?).await?);
            Ok(())
        })
        .await;
        let marker = marker.context("no write is acknowledged after everything was mended")?;
        self.goal("every watcher has seen the last write", async || {
            let watched = book.watched().unwrap_or(marker);
            ensure!(watched >= marker, "revision {watched} of {marker}");
            Ok(())
        })
        .await;
        self.goal("pods are what was asked for", async || pods::settled(&target).await).await;
        if self.target.docker {
            let mut jobs = Vec::new();
            self.goal("every Job is complete", async || {
                jobs = pods::jobs(&target).await?;
                Ok(())
            })
            .await;
            self.evidence.jobs = jobs;
        }
        if let Some(mut etcd) = target.etcd(0)? {
            self.goal("locks of clients that are gone are free", async || {
                let held = etcd.count(LOCKS).await?;
                ensure!(held == 0, "{held} are held");
                Ok(())
            })
            .await;
        }
        // Last, when next to nothing writes: members are asked one after another.
        let mut members = Vec::new();
        self.goal("all members are at the same revision", async || {
            members = contents(&target).await?;
            let mut revisions: Vec<_> = members.iter().map(|m| (&m.part, m.revision)).collect();
            revisions.sort();
            revisions.dedup();
            let parts = kinds().len();
            ensure!(revisions.len() == parts, "{} revisions in {parts}", revisions.len());
            Ok(())
        })
        .await;
        self.evidence.members = members;
        book.read_back(&client, target.etcd(0)?).await?;
        self.final_state().await
    }

    async fn final_state(&mut self) -> Result<()> {
        let client = self.target.client(0)?;
        let options = ListOptions::default();
        let nodes: Vec<Node> = client.list_as(&options).await?;
        for node in nodes {
            let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
            let get = |name: &str, read: fn(&_) -> i64| {
                allocatable.get(name).map_or(u64::MAX, |q| u64::try_from(read(q)).unwrap_or(0))
            };
            let offered = Resources {
                cpu_milli: get("cpu", quantity::cpu_millis),
                memory: get("memory", quantity::bytes),
                pods: get("pods", quantity::bytes),
            };
            self.evidence.nodes.insert(node.metadata.name.unwrap_or_default(), offered);
        }
        if !self.target.docker {
            return Ok(());
        }
        // Before and after: a container's pod may end, or have begun, while containers are listed.
        let before: Vec<Pod> = client.list_as(&options).await?;
        self.evidence.final_containers = observer::all_containers(&self.target).await?;
        let after: Vec<Pod> = client.list_as(&options).await?;
        let uids = before.into_iter().chain(after).filter_map(|pod| pod.metadata.uid);
        self.evidence.final_pods = Some(uids.collect());
        Ok(())
    }

    /// Waits for something that must come about, and records how long it took.
    async fn goal(&mut self, what: &str, look: impl AsyncFnMut() -> Result<()>) {
        let start = Instant::now();
        // The verdict is clear after one miss, and what follows depends on what is missing.
        let missed = self.evidence.convergence.iter().any(|goal| goal.took_ms.is_none());
        let limit = if missed { AFTER_A_MISS } else { CONVERGENCE };
        let reached = wait_for(what, limit, look).await;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.evidence.convergence.push(Convergence {
            what: what.to_owned(),
            took_ms: reached.is_ok().then(|| millis(start.elapsed())),
            limit_ms: millis(limit),
            missing: reached.err().map(|error| format!("{error:#}")).unwrap_or_default(),
        });
    }
}

/// Everything that every member holds, in parts by kind.
async fn contents(target: &Target) -> Result<Vec<MemberContents>> {
    let mut all = Vec::new();
    for master in &target.masters() {
        let client = target.observer_of(master)?;
        for kind in kinds() {
            all.push(contents_of(&client, master, kind).await?);
        }
    }
    Ok(all)
}

async fn contents_of(
    client: &quorate_client::Client,
    master: &str,
    kind: &Kind,
) -> Result<MemberContents> {
    let options = ListOptions { stale: true, ..ListOptions::default() };
    let list = client.list(kind, &options).await?;
    let digest = |object: &quorate_client::Object| {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        object.value.to_string().hash(&mut hasher);
        format!("{}@{}", hasher.finish(), object.revision)
    };
    let items = list.items.iter();
    Ok(MemberContents {
        member: master.to_owned(),
        part: kind.kind.to_owned(),
        revision: list.revision,
        contents: items.map(|o| (format!("{}/{}", o.namespace, o.name), digest(o))).collect(),
    })
}
