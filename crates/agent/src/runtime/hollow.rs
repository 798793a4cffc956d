//! Containers that only pretend to run: for tests of clusters of any size. Annotations of the
//! pod say what its containers do (times are in seconds and may have fractions):
//!
//! | annotation | meaning |
//! |---|---|
//! | `quorate.dev/hollow-start-seconds` | from the start of a container until it runs |
//! | `quorate.dev/hollow-ready-after` | from then until it is ready |
//! | `quorate.dev/hollow-run-seconds` | it runs for so long; without it, until it is stopped |
//! | `quorate.dev/hollow-exit-code` | with which it ends by itself; 0 without |
//! | `quorate.dev/hollow-stop-seconds` | it takes so long to stop |
//! | `quorate.dev/hollow-cpu`, `-memory` | what each container uses, as quantities |
//!
//! Init containers end at once, and well.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use quorate_objects::quantity::Quantity;
use tokio::sync::Notify;

use super::{
    Attached, ContainerSpec, ExecSpec, ImageError, ImageInfo, Io, LogQuery, PodRef, Process,
    Record, Role, RunState, Runtime, RuntimeError, RuntimeInfo, Sample, SandboxSpec, VolumeSpec,
};

const PREFIX: &str = "quorate.dev/hollow-";
/// Addresses of hollow pods begin here: a range for carriers' networks, 100.64.0.0/10, in
/// which nothing of a cluster is.
const FIRST_ADDRESS: u32 = 0x6440_0001;
const ADDRESSES: u32 = (1 << 22) - 2;
const SIGTERM: i32 = 143;
const SIGKILL: i32 = 137;

/// What a pod's containers do.
#[derive(Debug, Clone, Default, PartialEq)]
struct Behaviour {
    start: SignedDuration,
    ready_after: SignedDuration,
    run: Option<SignedDuration>,
    exit_code: i32,
    stop: Duration,
    cpu_millis: u64,
    memory_bytes: u64,
}

impl Behaviour {
    /// # Errors
    /// An annotation that is not what it should be, by its name.
    fn read(annotations: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| annotations.get(&format!("{PREFIX}{name}")).map(String::as_str);
        let wrong = |name: &str, text: &str, what: &str| {
            format!("annotation {PREFIX}{name}: {text:?} is not {what}")
        };
        let seconds = |name: &str| {
            let Some(text) = text(name) else { return Ok(None) };
            let number = text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s));
            let number = number.ok_or_else(|| wrong(name, text, "a number of seconds"))?;
            Ok::<_, String>(Some(Duration::from_secs_f64(number)))
        };
        let signed = |name: &str| {
            let given = seconds(name)?;
            Ok::<_, String>(given.and_then(|time| SignedDuration::try_from(time).ok()))
        };
        let quantity = |name: &str| {
            let Some(text) = text(name) else { return Ok(None) };
            Quantity::parse(text).map(Some).map_err(|_| wrong(name, text, "a quantity"))
        };
        let exit_code = text("exit-code").map_or(Ok(0), |text| {
            text.parse().map_err(|_| wrong("exit-code", text, "an exit code"))
        })?;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Self {
            start: signed("start-seconds")?.unwrap_or_default(),
            ready_after: signed("ready-after")?.unwrap_or_default(),
            run: signed("run-seconds")?,
            exit_code,
            stop: seconds("stop-seconds")?.unwrap_or_default(),
            cpu_millis: quantity("cpu")?.map_or(0, |q| unsigned(q.millis())),
            memory_bytes: quantity("memory")?.map_or(0, |q| unsigned(q.units())),
        })
    }
}

/// One container, or a sandbox.
struct Container {
    record: Record,
    runs_at: Timestamp,
    ready_at: Timestamp,
    ends_at: Option<Timestamp>,
}

impl Container {
    /// As it is at this time.
    fn at(&self, now: Timestamp, exit_code: i32) -> Record {
        let mut record = self.record.clone();
        if record.state == RunState::Exited {
            return record;
        }
        if let Some(end) = self.ends_at.filter(|end| *end <= now) {
            record.state = RunState::Exited;
            record.started_at = Some(self.runs_at);
            record.finished_at = Some(end);
            record.exit_code = if record.role == Role::Init { 0 } else { exit_code };
        } else if self.runs_at <= now {
            record.state = RunState::Running;
            record.started_at = Some(self.runs_at);
            record.unready = self.ready_at > now;
        }
        record
    }
}

#[derive(Default)]
struct Pod {
    behaviour: Behaviour,
    containers: Vec<Container>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Pod>,
    /// When time alone changes something, and of which pod.
    due: BTreeSet<(Timestamp, String)>,
    next: u64,
}

/// The containers of one hollow node.
pub struct Hollow(Arc<Engine>);

struct Engine {
    state: Mutex<State>,
    changed: Notify,
    /// Shared by the nodes of the process.
    addresses: Arc<AtomicU32>,
}

impl Hollow {
    /// No containers yet.
    #[must_use]
    pub fn new(addresses: Arc<AtomicU32>) -> Self {
        Self(Arc::new(Engine { state: Mutex::default(), changed: Notify::new(), addresses }))
    }
}

impl Engine {
    fn address(&self) -> IpAddr {
        let number = self.addresses.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
        Ipv4Addr::from(FIRST_ADDRESS + number).into()
    }

    /// Pods of which something has become due, and when the next will.
    fn take_due(&self, now: Timestamp) -> (Vec<String>, Option<Timestamp>) {
        let mut state = self.state.lock();
        let mut found = Vec::new();
        while state.due.first().is_some_and(|(at, _)| *at <= now) {
            found.extend(state.due.pop_first().map(|(_, uid)| uid));
        }
        (found, state.due.first().map(|(at, _)| *at))
    }

    fn add(&self, container: Container, behaviour: Option<Behaviour>) {
        let mut state = self.state.lock();
        state.next += 1;
        let uid = container.record.pod.uid.clone();
        let now = quorate_objects::time::timestamp();
        let times = [Some(container.runs_at), Some(container.ready_at), container.ends_at];
        for at in times.into_iter().flatten().filter(|at| *at > now) {
            state.due.insert((at, uid.clone()));
        }
        let pod = state.pods.entry(uid).or_default();
        if let Some(behaviour) = behaviour {
            pod.behaviour = behaviour;
        }
        pod.containers.push(container);
        drop(state);
        self.changed.notify_one();
    }

    /// Carries out `change` on a container, if it exists.
    fn change<T>(&self, id: &str, change: impl FnOnce(&mut Pod, usize) -> T) -> Option<T> {
        let (uid, _) = id.split_once('/')?;
        let mut state = self.state.lock();
        let pod = state.pods.get_mut(uid)?;
        let index = pod.containers.iter().position(|c| c.record.id == id)?;
        Some(change(pod, index))
    }
}

fn record(pod: &PodRef, role: Role, name: &str, attempt: u32) -> Record {
    Record {
        // The uid makes it unique in the cluster, and finds the pod.
        id: format!("{}/{}/{name}/{attempt}", pod.uid, role.as_str()),
        pod: pod.clone(),
        role,
        container: name.to_owned(),
        attempt,
        failures: 0,
        sandbox: String::new(),
        grace: 0,
        image: String::new(),
        image_id: String::new(),
        state: RunState::Created,
        created_at: quorate_objects::time::timestamp(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        oom_killed: false,
        error: String::new(),
        ip: None,
        unready: false,
    }
}

fn nothing_runs<T>() -> Result<T, RuntimeError> {
    Err(RuntimeError::Failed("nothing really runs on a hollow node".into()))
}

#[async_trait]
impl Runtime for Hollow {
    fn runs_processes(&self) -> bool {
        false
    }

    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo { name: "hollow".into(), version: env!("CARGO_PKG_VERSION").into() })
    }

    async fn ensure_network(&self, _cidr: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Record>, RuntimeError> {
        let now = quorate_objects::time::timestamp();
        let state = self.0.state.lock();
        let of = |pod: &Pod| -> Vec<Record> {
            pod.containers.iter().map(|c| c.at(now, pod.behaviour.exit_code)).collect()
        };
        Ok(match pod_uid {
            Some(uid) => state.pods.get(uid).map(of).unwrap_or_default(),
            None => state.pods.values().flat_map(of).collect(),
        })
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let behaviour = Behaviour::read(&spec.annotations).map_err(RuntimeError::Failed)?;
        let mut record = record(&spec.pod, Role::Sandbox, "", spec.attempt);
        record.ip = (!spec.host_network).then(|| self.0.address());
        let now = record.created_at;
        let container = Container { record, runs_at: now, ready_at: now, ends_at: None };
        self.0.add(container, Some(behaviour));
        Ok(())
    }

    async fn image(&self, _image: &str) -> Result<Option<ImageInfo>, RuntimeError> {
        Ok(Some(ImageInfo::default()))
    }

    async fn pull_image(&self, _image: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let behaviour =
            self.0.state.lock().pods.get(&spec.pod.uid).map(|pod| pod.behaviour.clone());
        let behaviour = behaviour.unwrap_or_default();
        let record = Record {
            failures: spec.failures,
            sandbox: spec.sandbox.clone(),
            grace: spec.grace,
            image: spec.image.clone(),
            image_id: format!("hollow:{}", spec.image),
            ..record(&spec.pod, spec.role, &spec.name, spec.attempt)
        };
        let after = |time: Timestamp, wait| time.saturating_add(wait).unwrap_or(time);
        let runs_at = after(record.created_at, behaviour.start);
        let (ready_at, ends_at) = if spec.role == Role::Init && !spec.sidecar {
            (runs_at, Some(runs_at))
        } else {
            (after(runs_at, behaviour.ready_after), behaviour.run.map(|run| after(runs_at, run)))
        };
        self.0.add(Container { record, runs_at, ready_at, ends_at }, None);
        Ok(())
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        Ok(PathBuf::from("/nowhere").join(&spec.name))
    }

    async fn remove_volume(&self, _name: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let time = self.0.change(id, |pod, index| {
            let sandbox = pod.containers[index].record.role == Role::Sandbox;
            if sandbox { Duration::ZERO } else { pod.behaviour.stop }
        });
        let Some(time) = time else { return Ok(()) };
        if !time.is_zero() {
            tokio::time::sleep(time.min(grace)).await;
        }
        self.0.change(id, |pod, index| {
            let now = quorate_objects::time::timestamp();
            let container = &mut pod.containers[index];
            let mut record = container.at(now, pod.behaviour.exit_code);
            if record.state != RunState::Exited {
                record.state = RunState::Exited;
                record.finished_at = Some(now);
                record.exit_code = if time > grace { SIGKILL } else { SIGTERM };
            }
            container.record = record;
        });
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.0.change(id, |pod, index| drop(pod.containers.remove(index)));
        if let Some((uid, _)) = id.split_once('/') {
            let mut state = self.0.state.lock();
            if state.pods.get(uid).is_some_and(|pod| pod.containers.is_empty()) {
                state.pods.remove(uid);
            }
        }
        Ok(())
    }

    async fn logs(
        &self,
        id: &str,
        _query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        let text = format!("hollow container {id}: nothing really runs here\n");
        Ok(futures::stream::iter([Ok(Bytes::from(text))]).boxed())
    }

    async fn exec(&self, _id: &str, _spec: &ExecSpec) -> Result<Attached, RuntimeError> {
        nothing_runs()
    }

    async fn exec_result(&self, _exec: &str) -> Result<Option<i32>, RuntimeError> {
        nothing_runs()
    }

    async fn exec_kill(&self, _exec: &str) -> Result<(), RuntimeError> {
        nothing_runs()
    }

    async fn attach(&self, _id: &str, _stdin: bool) -> Result<Attached, RuntimeError> {
        nothing_runs()
    }

    async fn resize(&self, _process: &Process, _cols: u16, _rows: u16) -> Result<(), RuntimeError> {
        nothing_runs()
    }

    async fn connect(&self, _sandbox: &str, _port: u16) -> Result<Box<dyn Io>, RuntimeError> {
        nothing_runs()
    }

    async fn samples(&self, ids: &[String]) -> Result<Vec<Sample>, RuntimeError> {
        let now = quorate_objects::time::timestamp();
        let sample = |id: &String| {
            self.0.change(id, |pod, index| {
                let ran = now.duration_since(pod.containers[index].runs_at).as_millis();
                let millis = u64::try_from(ran).unwrap_or(0);
                Sample {
                    id: id.clone(),
                    // Thousandths of a core for so many milliseconds, in nanoseconds.
                    cpu_nanos: millis.saturating_mul(pod.behaviour.cpu_millis).saturating_mul(1000),
                    memory_bytes: pod.behaviour.memory_bytes,
                }
            })
        };
        Ok(ids.iter().filter_map(sample).collect())
    }

    async fn events(&self) -> Result<BoxStream<'static, String>, RuntimeError> {
        let engine = Arc::clone(&self.0);
        let next = |(engine, mut due): (Arc<Engine>, Vec<String>)| async move {
            loop {
                if let Some(uid) = due.pop() {
                    return Some((uid, (engine, due)));
                }
                let now = quorate_objects::time::timestamp();
                let (found, next) = engine.take_due(now);
                due = found;
                if !due.is_empty() {
                    continue;
                }
                let wait = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
                match wait {
                    Some(wait) => {
                        let _ = tokio::time::timeout(wait, engine.changed.notified()).await;
                    }
                    None => engine.changed.notified().await,
                }
            }
        };
        Ok(futures::stream::unfold((engine, Vec::new()), next).boxed())
    }
}

#[cfg(test)]
#[path = "hollow_test.rs"]
mod tests;
