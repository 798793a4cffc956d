//! The probes of a pod's running containers: one task for each container that has some.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::events::Recorder;
use super::plan::{is_sidecar, sandbox_ip};
use super::probe::{Target, watch};
use crate::runtime::{Record, Role, RunState, Runtime};

/// What the probes of a container say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// Its startup probe has succeeded.
    pub started: bool,
    /// Its readiness probe succeeds.
    pub ready: bool,
    /// Its startup or liveness probe has failed for good: it has to end.
    pub failed: Option<String>,
}

/// Results by container id.
pub type Results = HashMap<String, Probed>;

/// The probes of one pod.
pub struct Prober {
    results: Arc<Mutex<Results>>,
    tasks: HashMap<String, AbortOnDropHandle<()>>,
    /// Wakes the pod's worker.
    wake: Arc<Notify>,
}

impl Prober {
    /// No probes yet.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Self {
        Self { results: Arc::default(), tasks: HashMap::new(), wake }
    }

    /// What they say now.
    #[must_use]
    pub fn results(&self) -> Results {
        self.results.lock().clone()
    }

    /// Probes what runs, and nothing else. `known` is the pod's last status: what was ready
    /// before the agent was started again stays ready until its probe says otherwise.
    pub fn sync(
        &mut self,
        runtime: &Arc<dyn Runtime>,
        pod: &Pod,
        records: &[Record],
        known: Option<&PodStatus>,
        host_ip: IpAddr,
        events: &Recorder,
    ) {
        let runs =
            |id: &String| records.iter().any(|r| r.id == *id && r.state == RunState::Running);
        self.tasks.retain(|id, _| runs(id));
        self.results.lock().retain(|id, _| runs(id));
        let ip = sandbox_ip(records).unwrap_or(host_ip);
        for record in records.iter().filter(|r| r.state == RunState::Running) {
            if self.tasks.contains_key(&record.id) {
                continue;
            }
            let Some(container) = probed(pod, record) else { continue };
            let before = before(known, record);
            self.results.lock().insert(record.id.clone(), before.clone());
            let target = Target {
                runtime: Arc::clone(runtime),
                id: record.id.clone(),
                ip,
                container: Arc::new(container.clone()),
            };
            let task = Task {
                pod: record.pod.to_string(),
                target,
                results: Arc::clone(&self.results),
                wake: Arc::clone(&self.wake),
                events: events.clone(),
                role: record.role,
            };
            // Probes one container; ends when that does, or when a probe has condemned it.
            let task = tokio::spawn(task.run(before.started));
            self.tasks.insert(record.id.clone(), AbortOnDropHandle::new(task));
        }
    }
}

/// The container of a record, when it has probes.
fn probed<'a>(pod: &'a Pod, record: &Record) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let container = match record.role {
        Role::App => spec.containers.iter().find(|c| c.name == record.container)?,
        Role::Init => {
            let mut inits = spec.init_containers.iter().flatten();
            inits.find(|c| c.name == record.container && is_sidecar(c))?
        }
        Role::Sandbox | Role::Ephemeral => return None,
    };
    let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
    probes.iter().any(|probe| probe.is_some()).then_some(container)
}

/// What was known of this very container.
fn before(known: Option<&PodStatus>, record: &Record) -> Probed {
    let lists = known.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let mut all = lists.into_iter().flatten().flatten().flatten();
    let status = all
        .find(|status| status.container_id.as_deref().is_some_and(|id| id.ends_with(&record.id)));
    let Some(status) = status else { return Probed::default() };
    Probed { started: status.started == Some(true), ready: status.ready, failed: None }
}

struct Task {
    pod: String,
    target: Target,
    results: Arc<Mutex<Results>>,
    wake: Arc<Notify>,
    events: Recorder,
    role: Role,
}

impl Task {
    async fn run(self, started: bool) {
        let container = Arc::clone(&self.target.container);
        if let Some(probe) = container.startup_probe.as_ref().filter(|_| !started) {
            let mut alive = true;
            watch(
                &self.target,
                probe,
                |m| self.unhealthy("Startup", m),
                |result| {
                    alive = result.is_ok();
                    match result {
                        Ok(()) => self.note(|probed| probed.started = true),
                        Err(message) => self.condemn("startup", message),
                    }
                    true
                },
            )
            .await;
            if !alive {
                return;
            }
        }
        let liveness = async {
            let Some(probe) = &container.liveness_probe else { return };
            watch(
                &self.target,
                probe,
                |m| self.unhealthy("Liveness", m),
                |result| {
                    let Err(message) = result else { return false };
                    self.condemn("liveness", message);
                    true
                },
            )
            .await;
        };
        let readiness = async {
            let Some(probe) = &container.readiness_probe else { return };
            watch(
                &self.target,
                probe,
                |m| self.unhealthy("Readiness", m),
                |result| {
                    self.note(|probed| probed.ready = result.is_ok());
                    false
                },
            )
            .await;
        };
        futures::future::join(Box::pin(liveness), Box::pin(readiness)).await;
    }

    fn unhealthy(&self, kind: &str, message: &str) {
        let part = Some((self.role, self.target.container.name.as_str()));
        self.events.warning(part, "Unhealthy", format!("{kind} probe failed: {message}"));
    }

    fn note(&self, change: impl FnOnce(&mut Probed)) {
        let mut results = self.results.lock();
        let Some(probed) = results.get_mut(&self.target.id) else { return };
        let before = probed.clone();
        change(probed);
        if *probed != before {
            drop(results);
            self.wake.notify_one();
        }
    }

    fn condemn(&self, kind: &str, message: String) {
        let container = &self.target.container.name;
        info!(pod = self.pod, container, message, "{kind} probe failed, the container ends");
        let text = format!("Container {container} failed {kind} probe");
        self.note(|probed| probed.failed = Some(text));
    }
}
