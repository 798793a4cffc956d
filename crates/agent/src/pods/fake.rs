//! A container engine in memory, for tests of everything above the runtime.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;

use crate::runtime::{
    Attached, ContainerSpec, ExecSpec, ImageError, ImageInfo, Io, LogQuery, PodRef, Process,
    Record, Role, RunState, Runtime, RuntimeError, RuntimeInfo, Sample, SandboxSpec, VolumeSpec,
};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) records: Vec<Record>,
    pub(crate) missing_images: BTreeSet<String>,
    pub(crate) stopped: Vec<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) down: bool,
    /// How often it was asked what there is, whether it was down or not.
    pub(crate) looks: usize,
    /// With which every exec ends.
    pub(crate) exec_code: i32,
    /// Execs do not end.
    pub(crate) exec_runs: bool,
    /// How long an exec writes before it ends.
    pub(crate) exec_takes: Duration,
    /// Execs cannot even be started in time.
    pub(crate) exec_stuck: bool,
    /// How many there were.
    pub(crate) execs: usize,
    /// How long containers take to stop, within their grace.
    pub(crate) stop_takes: Duration,
    /// The grace of every stop.
    pub(crate) graces: Vec<Duration>,
    /// It takes questions, and does not answer.
    pub(crate) hangs: bool,
    next: u32,
}

/// The engine. Containers run until a test ends them.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
}

impl Fake {
    pub(crate) fn exit(&self, container: &str, code: i32) {
        let mut state = self.state.lock();
        let record = state
            .records
            .iter_mut()
            .find(|r| r.container == container && r.state == RunState::Running)
            .unwrap();
        record.state = RunState::Exited;
        record.exit_code = code;
        record.finished_at = Some(quorate_objects::time::timestamp());
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.state.lock().records.clone()
    }

    fn check(&self) -> Result<(), RuntimeError> {
        if self.state.lock().down {
            return Err(RuntimeError::Unavailable("down".into()));
        }
        Ok(())
    }
}

/// A container that runs.
pub(crate) fn record(uid: &str, role: Role, container: &str, attempt: u32) -> Record {
    Record {
        id: format!("{uid}-{}-{container}-{attempt}", role.as_str()),
        pod: PodRef { namespace: "default".into(), name: uid.into(), uid: uid.into() },
        role,
        container: container.into(),
        attempt,
        failures: 0,
        sandbox: if role == Role::Sandbox { String::new() } else { format!("{uid}-sandbox--0") },
        grace: 1,
        image: "img:1".into(),
        image_id: "sha256:1".into(),
        state: RunState::Running,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: Some(Timestamp::UNIX_EPOCH),
        finished_at: None,
        exit_code: 0,
        oom_killed: false,
        error: String::new(),
        ip: (role == Role::Sandbox).then(|| "10.1.0.2".parse().unwrap()),
        unready: false,
    }
}

/// A pod with containers "a", "b", … of image img:1.
pub(crate) fn pod(uid: &str, policy: &str, containers: &[&str]) -> Pod {
    let containers: Vec<_> =
        containers.iter().map(|name| json!({"name": name, "image": "img:1"})).collect();
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": uid, "namespace": "default", "uid": uid},
        "spec": {"restartPolicy": policy, "containers": containers,
            "automountServiceAccountToken": false},
    }))
    .unwrap()
}

#[async_trait]
impl Runtime for Fake {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let hangs = self.state.lock().hangs;
        if hangs {
            std::future::pending::<()>().await;
        }
        self.check()?;
        Ok(RuntimeInfo { name: "fake".into(), version: "1".into() })
    }

    async fn ensure_network(&self, _cidr: &str) -> Result<(), RuntimeError> {
        self.check()
    }

    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Record>, RuntimeError> {
        self.state.lock().looks += 1;
        self.check()?;
        let all = self.records();
        Ok(all.into_iter().filter(|r| pod_uid.is_none_or(|uid| r.pod.uid == uid)).collect())
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        self.check()?;
        let mut made = record(&spec.pod.uid, Role::Sandbox, "", spec.attempt);
        made.pod = spec.pod.clone();
        self.state.lock().records.push(made);
        Ok(())
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, RuntimeError> {
        self.check()?;
        let there = !self.state.lock().missing_images.contains(image);
        Ok(there.then(ImageInfo::default))
    }

    async fn pull_image(&self, image: &str) -> Result<(), ImageError> {
        self.check()?;
        if self.state.lock().missing_images.contains(image) {
            return Err(ImageError::Pull { image: image.into(), message: "not found".into() });
        }
        Ok(())
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        self.check()?;
        let mut state = self.state.lock();
        state.next += 1;
        let mut made = record(&spec.pod.uid, spec.role, &spec.name, spec.attempt);
        made.id = format!("{}-{}", made.id, state.next);
        made.pod = spec.pod.clone();
        made.failures = spec.failures;
        made.sandbox.clone_from(&spec.sandbox);
        made.image.clone_from(&spec.image);
        made.created_at = quorate_objects::time::timestamp();
        made.started_at = Some(quorate_objects::time::timestamp());
        state.records.push(made);
        Ok(())
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        self.check()?;
        let mut state = self.state.lock();
        if !state.volumes.contains(&spec.name) {
            state.volumes.push(spec.name.clone());
        }
        Ok(PathBuf::from("/volumes").join(&spec.name))
    }

    async fn remove_volume(&self, name: &str) -> Result<(), RuntimeError> {
        self.check()?;
        self.state.lock().volumes.retain(|volume| volume != name);
        Ok(())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.check()?;
        let takes = {
            let mut state = self.state.lock();
            state.stopped.push(id.to_owned());
            state.graces.push(grace);
            state.stop_takes.min(grace)
        };
        tokio::time::sleep(takes).await;
        let mut state = self.state.lock();
        if let Some(record) = state.records.iter_mut().find(|r| r.id == id) {
            record.state = RunState::Exited;
            record.exit_code = 143;
            record.finished_at = Some(quorate_objects::time::timestamp());
        }
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.check()?;
        self.state.lock().records.retain(|r| r.id != id);
        Ok(())
    }

    async fn logs(
        &self,
        _id: &str,
        _query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        Ok(futures::stream::iter([Ok(Bytes::from_static(b"hello\n"))]).boxed())
    }

    async fn exec(&self, _id: &str, _spec: &ExecSpec) -> Result<Attached, RuntimeError> {
        self.check()?;
        let takes = {
            let mut state = self.state.lock();
            state.execs += 1;
            if state.exec_stuck {
                return Err(RuntimeError::Timeout("exec"));
            }
            state.exec_takes
        };
        let process = Process::Exec("exec".into());
        let written = futures::stream::once(tokio::time::sleep(takes));
        let output = written.filter_map(|()| std::future::ready(None)).boxed();
        Ok(Attached { process, input: Box::pin(tokio::io::sink()), output })
    }

    async fn exec_result(&self, _exec: &str) -> Result<Option<i32>, RuntimeError> {
        self.check()?;
        let state = self.state.lock();
        Ok((!state.exec_runs).then_some(state.exec_code))
    }

    async fn exec_kill(&self, _exec: &str) -> Result<(), RuntimeError> {
        self.check()
    }

    async fn attach(&self, id: &str, _stdin: bool) -> Result<Attached, RuntimeError> {
        self.exec(id, &ExecSpec::default()).await
    }

    async fn resize(&self, _process: &Process, _cols: u16, _rows: u16) -> Result<(), RuntimeError> {
        self.check()
    }

    async fn connect(&self, _sandbox: &str, _port: u16) -> Result<Box<dyn Io>, RuntimeError> {
        Err(RuntimeError::Failed("nobody listens".into()))
    }

    async fn samples(&self, _ids: &[String]) -> Result<Vec<Sample>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn events(&self) -> Result<BoxStream<'static, String>, RuntimeError> {
        self.info().await?;
        Ok(futures::stream::pending().boxed())
    }
}
