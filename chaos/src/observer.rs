//! Looks at masters and containers while the run goes on, past every rule of the proxy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_client::v1::StatusResponse;
use quorate_testkit::docker;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::evidence::{Container, ContainerSample, Evidence, MasterSighting};
use crate::history::Clock;
use crate::run::STATEFUL;
use crate::target::{Target, leads};

/// Pause between two looks at the masters.
const MASTERS: Duration = Duration::from_millis(100);
/// Pause between two looks at the containers.
const CONTAINERS: Duration = Duration::from_millis(1_000);

#[derive(Debug, Default)]
struct Seen {
    masters: Vec<MasterSighting>,
    containers: Vec<ContainerSample>,
}

/// A running observer.
#[derive(Debug)]
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Observer {
    /// Starts looking.
    #[must_use]
    pub fn start(target: &Target, clock: Clock) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        // Tasks "observer of masters" and "of containers": who does not answer is not seen.
        tasks.spawn(masters(target.clone(), clock, Arc::clone(&seen), cancel.clone()));
        if target.docker {
            tasks.spawn(containers(target.clone(), clock, Arc::clone(&seen), cancel.clone()));
        }
        Self { seen, cancel, tasks }
    }

    /// The newest term, and who was last seen leading it.
    #[must_use]
    pub fn leadership(&self) -> (u64, String) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let term = seen.masters.iter().rev().take(9).map(|sighting| sighting.term).max();
        let leader = seen.masters.iter().rev().take(30).find(|sighting| sighting.leads);
        let leader = leader.map_or("nobody", |sighting| sighting.master.as_str());
        (term.unwrap_or(0), leader.to_owned())
    }

    /// Stops looking, and hands over what was seen.
    pub async fn stop(mut self, evidence: &mut Evidence) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        evidence.masters = std::mem::take(&mut seen.masters);
        evidence.containers = std::mem::take(&mut seen.containers);
    }
}

async fn masters(target: Target, clock: Clock, seen: Arc<Mutex<Seen>>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let pids = target.cluster().pids().unwrap_or_default();
        let statuses = target.statuses().await.unwrap_or_default();
        // Its process may have been replaced between the two looks.
        let same = target.cluster().pids().unwrap_or_default() == pids;
        // One that is not admitted, for instance because its disk is gone, tells nothing of the
        // cluster.
        let known = statuses.into_iter().filter(|status| same && is_admitted(status));
        let sightings = known.map(|status| MasterSighting {
            at: clock.now(),
            pid: pids.get(&status.name).and_then(|pid| u32::try_from(*pid).ok()).unwrap_or(0),
            leads: leads(&status),
            term: status.term,
            revision: status.revision,
            master: status.name,
        });
        let sightings: Vec<_> = sightings.collect();
        seen.lock().unwrap_or_else(PoisonError::into_inner).masters.extend(sightings);
        tokio::time::sleep(MASTERS).await;
    }
}

fn is_admitted(status: &StatusResponse) -> bool {
    status.members.iter().any(|member| member.name == status.name)
}

async fn containers(
    target: Target,
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
    cancel: CancellationToken,
) {
    while !cancel.is_cancelled() {
        let containers = target.cluster().visible_containers().await;
        let containers = containers.into_iter().map(container).collect();
        let sample = ContainerSample { at: clock.now(), containers };
        seen.lock().unwrap_or_else(PoisonError::into_inner).containers.push(sample);
        tokio::time::sleep(CONTAINERS).await;
    }
}

/// All containers of the cluster, as Docker shows them.
///
/// # Errors
/// When Docker does not answer.
pub async fn all_containers(target: &Target) -> anyhow::Result<Vec<Container>> {
    let containers = target.cluster().containers().await?;
    Ok(containers.into_iter().map(container).collect())
}

fn container(container: docker::Container) -> Container {
    let label = |name: &str| {
        container.labels.get(&format!("quorate.dev/{name}")).cloned().unwrap_or_default()
    };
    let pod = format!("{}/{}", label("pod-namespace"), label("pod-name"));
    let stateful = label("pod-name").starts_with(&format!("{STATEFUL}-"));
    Container {
        node: label("node"),
        pod_uid: label("pod-uid"),
        pod,
        name: label("container"),
        id: container.id.clone(),
        started_at: container.started_at.clone(),
        running: container.running,
        stateful,
    }
}
