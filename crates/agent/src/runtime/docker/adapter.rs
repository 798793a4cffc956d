//! Calls of the Docker Engine API, each with a limit of time and an error that a person
//! can act on. No decisions here.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::exec::{ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    BuildInfo, ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ExecConfig,
    ImageInspect, NetworkCreateRequest, NetworkInspect, Volume, VolumeCreateRequest,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, BuildImageOptionsBuilder, CreateContainerOptions,
    CreateImageOptions, EventsOptions, ListContainersOptions, ListNetworksOptions,
    ListVolumesOptions, LogsOptions, RemoveContainerOptions, RemoveVolumeOptions,
    ResizeContainerTTYOptionsBuilder, StatsOptionsBuilder, StopContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::io::AsyncWrite;

use super::engine::Subnet;
use crate::runtime::{
    Attached, ExecSpec, LogQuery, Output, Process, RuntimeError, RuntimeInfo, Sample,
};

/// An ordinary call.
const CALL: Duration = Duration::from_secs(30);
/// A call that may wait for the disk: create, start, remove.
const SLOW_CALL: Duration = Duration::from_secs(120);
/// A pull that tells of no progress for this long has died.
const PULL_SILENCE: Duration = Duration::from_secs(90);
/// No pull takes longer.
const PULL_TOTAL: Duration = Duration::from_secs(30 * 60);
/// bollard's own limit, above all of ours.
const CLIENT_SECONDS: u64 = 3600;

/// A connection to a Docker Engine. It connects anew for each call, so an engine that was
/// restarted needs nothing from us.
#[derive(Clone)]
pub struct Adapter {
    docker: Docker,
    host: String,
}

impl Adapter {
    /// Finds the engine and agrees on a version of its API.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn connect(host: &str) -> Result<Self, RuntimeError> {
        let docker = if let Some(path) = host.strip_prefix("unix://") {
            Docker::connect_with_unix(path, CLIENT_SECONDS, API_DEFAULT_VERSION)
        } else if host.starts_with("tcp://") || host.starts_with("http://") {
            Docker::connect_with_http(host, CLIENT_SECONDS, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_unix(host, CLIENT_SECONDS, API_DEFAULT_VERSION)
        };
        let docker = docker.map_err(|e| explain(host, "connect", e))?;
        let docker = tokio::time::timeout(CALL, docker.negotiate_version())
            .await
            .map_err(|_| RuntimeError::Timeout("connect"))?
            .map_err(|e| explain(host, "connect", e))?;
        Ok(Self { docker, host: host.to_owned() })
    }

    async fn call<T>(
        &self,
        limit: Duration,
        what: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result.map_err(|e| explain(&self.host, what, e)),
            Err(_) => Err(RuntimeError::Timeout(what)),
        }
    }

    /// Version, and proof that it answers.
    pub async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let version = self.call(CALL, "version", self.docker.version()).await?;
        Ok(RuntimeInfo { name: "docker".into(), version: version.version.unwrap_or_default() })
    }

    /// The engine's architecture, in Docker's words ("amd64").
    pub async fn architecture(&self) -> Result<String, RuntimeError> {
        Ok(self.call(CALL, "version", self.docker.version()).await?.arch.unwrap_or_default())
    }

    /// All containers with all of the labels, running or not.
    pub async fn list(&self, labels: Vec<String>) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), labels)])),
            ..Default::default()
        };
        self.call(CALL, "list containers", self.docker.list_containers(Some(options))).await
    }

    /// Everything about one container; none when it is gone.
    pub async fn inspect(
        &self,
        id: &str,
    ) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let call = self.docker.inspect_container(id, None);
        absent_is_none(self.call(CALL, "inspect container", call).await)
    }

    /// Makes a container; answers its id.
    pub async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, RuntimeError> {
        let options =
            CreateContainerOptions { name: Some(name.to_owned()), platform: String::new() };
        let call = self.docker.create_container(Some(options), body);
        Ok(self.call(SLOW_CALL, "create container", call).await?.id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.call(SLOW_CALL, "start container", self.docker.start_container(id, None)).await
    }

    /// Stops a container; fine when it does not run or does not exist.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), signal: None };
        let call = self.docker.stop_container(id, Some(options));
        let limit = grace.saturating_add(CALL);
        absent_is_none(self.call(limit, "stop container", call).await).map(drop)
    }

    /// Removes a container, running or not; fine when it does not exist.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let call = self.docker.remove_container(id, Some(options));
        match self.call(SLOW_CALL, "remove container", call).await {
            // Another removal of the same container is under way.
            Err(RuntimeError::Failed(m)) if m.contains("already in progress") => Ok(()),
            other => absent_is_none(other).map(drop),
        }
    }

    /// An image that is present; none when it is not.
    pub async fn image(&self, reference: &str) -> Result<Option<ImageInspect>, RuntimeError> {
        let call = self.docker.inspect_image(reference);
        absent_is_none(self.call(CALL, "inspect image", call).await)
    }

    /// Pulls an image.
    pub async fn pull(&self, reference: &str) -> Result<(), RuntimeError> {
        let (repository, tag) = split_reference(reference);
        let options = CreateImageOptions {
            from_image: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
            ..Default::default()
        };
        let mut progress = Box::pin(self.docker.create_image(Some(options), None, None));
        let pull = async {
            loop {
                match tokio::time::timeout(PULL_SILENCE, progress.next()).await {
                    Ok(Some(Ok(info))) => {
                        if let Some(message) = info.error_detail.and_then(|d| d.message) {
                            return Err(RuntimeError::Failed(message));
                        }
                    }
                    Ok(Some(Err(e))) => return Err(explain(&self.host, "pull image", e)),
                    Ok(None) => return Ok(()),
                    Err(_) => return Err(RuntimeError::Timeout("pull image")),
                }
            }
        };
        tokio::time::timeout(PULL_TOTAL, pull)
            .await
            .unwrap_or(Err(RuntimeError::Timeout("pull image")))
    }

    /// Builds an image from a tar archive with a Dockerfile.
    pub async fn build(&self, tag: &str, context: Bytes) -> Result<(), RuntimeError> {
        let options = BuildImageOptionsBuilder::default()
            .dockerfile("Dockerfile")
            .t(tag)
            .rm(true)
            .forcerm(true)
            .build();
        let mut progress =
            Box::pin(self.docker.build_image(options, None, Some(bollard::body_full(context))));
        let build = async {
            while let Some(line) = progress.next().await {
                let info: BuildInfo = line.map_err(|e| explain(&self.host, "build image", e))?;
                if let Some(message) = info.error_detail.and_then(|d| d.message) {
                    return Err(RuntimeError::Failed(message));
                }
            }
            Ok(())
        };
        tokio::time::timeout(SLOW_CALL, build)
            .await
            .unwrap_or(Err(RuntimeError::Timeout("build image")))
    }

    /// A network by name; none when there is none.
    pub async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, RuntimeError> {
        let call = self.docker.inspect_network(name, None);
        absent_is_none(self.call(CALL, "inspect network", call).await)
    }

    /// Names of the networks with all of the labels.
    pub async fn networks(&self, labels: Vec<String>) -> Result<Vec<String>, RuntimeError> {
        let options =
            ListNetworksOptions { filters: Some(HashMap::from([("label".to_owned(), labels)])) };
        let call = self.docker.list_networks(Some(options));
        let networks = self.call(CALL, "list networks", call).await?;
        Ok(networks.into_iter().filter_map(|network| network.name).collect())
    }

    /// The IPv4 ranges that networks take.
    pub async fn subnets(&self) -> Result<Vec<Subnet>, RuntimeError> {
        let networks = self.call(CALL, "list networks", self.docker.list_networks(None)).await?;
        let mut all = Vec::new();
        for network in networks {
            let configs = network.ipam.and_then(|i| i.config).unwrap_or_default();
            let name = network.name.unwrap_or_default();
            let ranges = configs.into_iter().filter_map(|c| c.subnet?.parse().ok());
            all.extend(ranges.map(|range| Subnet { network: name.clone(), range }));
        }
        Ok(all)
    }

    /// Makes a network.
    pub async fn create_network(&self, request: NetworkCreateRequest) -> Result<(), RuntimeError> {
        self.call(SLOW_CALL, "create network", self.docker.create_network(request)).await.map(drop)
    }

    /// Removes a network.
    pub async fn remove_network(&self, name: &str) -> Result<(), RuntimeError> {
        let call = self.docker.remove_network(name);
        absent_is_none(self.call(SLOW_CALL, "remove network", call).await).map(drop)
    }

    /// A volume by name; none when there is none.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>, RuntimeError> {
        let call = self.docker.inspect_volume(name);
        absent_is_none(self.call(CALL, "inspect volume", call).await)
    }

    /// Names of the volumes with all of the labels.
    pub async fn volumes(&self, labels: Vec<String>) -> Result<Vec<String>, RuntimeError> {
        let options =
            ListVolumesOptions { filters: Some(HashMap::from([("label".to_owned(), labels)])) };
        let call = self.docker.list_volumes(Some(options));
        let found = self.call(CALL, "list volumes", call).await?.volumes.unwrap_or_default();
        Ok(found.into_iter().map(|volume| volume.name).collect())
    }

    /// Makes a volume.
    pub async fn create_volume(
        &self,
        request: VolumeCreateRequest,
    ) -> Result<Volume, RuntimeError> {
        self.call(SLOW_CALL, "create volume", self.docker.create_volume(request)).await
    }

    /// Removes a volume and its data; fine when it does not exist.
    pub async fn remove_volume(&self, name: &str) -> Result<(), RuntimeError> {
        let call = self.docker.remove_volume(name, None::<RemoveVolumeOptions>);
        absent_is_none(self.call(SLOW_CALL, "remove volume", call).await).map(drop)
    }

    /// A container's output.
    pub fn logs(
        &self,
        id: &str,
        query: &LogQuery,
    ) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let options = LogsOptions {
            follow: query.follow,
            stdout: query.without != Some(Output::Stdout),
            stderr: query.without != Some(Output::Stderr),
            since: query.since.map_or(0, |s| i32::try_from(s).unwrap_or(i32::MAX)),
            until: 0,
            timestamps: query.timestamps,
            tail: query.tail.map_or_else(|| "all".to_owned(), |n| n.to_string()),
        };
        let host = self.host.clone();
        self.docker
            .logs(id, Some(options))
            .map(move |line| {
                line.map(LogOutput::into_bytes).map_err(|e| explain(&host, "read log", e))
            })
            .boxed()
    }

    /// Makes and starts a program in a container; answers its id and its streams.
    pub async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
    ) -> Result<(String, Attached), RuntimeError> {
        let options = ExecConfig {
            attach_stdin: Some(spec.stdin),
            attach_stdout: Some(spec.stdout),
            attach_stderr: Some(spec.stderr),
            tty: Some(spec.tty),
            cmd: Some(spec.command.clone()),
            ..Default::default()
        };
        let exec = self.call(CALL, "exec", self.docker.create_exec(id, options)).await?.id;
        let start = StartExecOptions { detach: false, tty: spec.tty, output_capacity: None };
        let started = self.docker.start_exec(&exec, Some(start));
        match self.call(CALL, "exec", started).await? {
            StartExecResults::Attached { output, input } => {
                let process = Process::Exec(exec.clone());
                Ok((exec, self.attached(process, input, output)))
            }
            StartExecResults::Detached => Err(RuntimeError::Failed("exec was detached".into())),
        }
    }

    /// What became of a program that `exec` started: exit code when it has ended, and its
    /// process id on the engine's host.
    pub async fn exec_state(&self, exec: &str) -> Result<(Option<i32>, i64), RuntimeError> {
        let state = self.call(CALL, "inspect exec", self.docker.inspect_exec(exec)).await?;
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
        let ended = state.running != Some(true);
        Ok((code.filter(|_| ended), state.pid.unwrap_or(0)))
    }

    /// Joins a container's main process.
    pub async fn attach(&self, id: &str, stdin: bool) -> Result<Attached, RuntimeError> {
        let options = AttachContainerOptionsBuilder::default()
            .stdin(stdin)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let call = self.docker.attach_container(id, Some(options));
        let AttachContainerResults { output, input } = self.call(CALL, "attach", call).await?;
        Ok(self.attached(Process::Main(id.to_owned()), input, output))
    }

    fn attached(
        &self,
        process: Process,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    ) -> Attached {
        let host = self.host.clone();
        let output = output.map(move |piece| {
            let piece = piece.map_err(|e| explain(&host, "read output", e))?;
            let from = match &piece {
                LogOutput::StdErr { .. } => Output::Stderr,
                _ => Output::Stdout,
            };
            Ok((from, piece.into_bytes()))
        });
        Attached { process, input, output: output.boxed() }
    }

    /// What a container has used; none when it does not run.
    pub async fn sample(&self, id: &str) -> Result<Option<Sample>, RuntimeError> {
        // One measurement, without the second one that Docker would wait for.
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = self.docker.stats(id, Some(options));
        let next = async { stats.next().await.transpose() };
        let stats = self.call(CALL, "stats", next).await?;
        Ok(stats.and_then(|stats| {
            let cpu_nanos = stats.cpu_stats?.cpu_usage?.total_usage?;
            let memory = stats.memory_stats?;
            // The kernel takes away what it has only cached, as Kubernetes counts.
            let cached = memory.stats.and_then(|s| s.get("inactive_file").copied()).unwrap_or(0);
            let memory_bytes = memory.usage?.saturating_sub(cached);
            Some(Sample { id: id.to_owned(), cpu_nanos, memory_bytes })
        }))
    }

    /// Sets the size of a terminal.
    pub async fn resize(
        &self,
        process: &Process,
        columns: u16,
        rows: u16,
    ) -> Result<(), RuntimeError> {
        match process {
            Process::Exec(id) => {
                let options = ResizeExecOptions { height: rows, width: columns };
                self.call(CALL, "resize", self.docker.resize_exec(id, options)).await
            }
            Process::Main(id) => {
                let options = ResizeContainerTTYOptionsBuilder::default()
                    .h(i32::from(rows))
                    .w(i32::from(columns))
                    .build();
                self.call(CALL, "resize", self.docker.resize_container_tty(id, options)).await
            }
        }
    }

    /// Values of one label of containers that changed, of those with all of the labels.
    pub fn events(&self, labels: Vec<String>, label: &'static str) -> BoxStream<'static, String> {
        let words = ["create", "start", "die", "oom", "destroy", "pause", "unpause"];
        let options = EventsOptions {
            since: None,
            until: None,
            filters: Some(HashMap::from([
                ("type".to_owned(), vec!["container".to_owned()]),
                ("event".to_owned(), words.map(str::to_owned).to_vec()),
                ("label".to_owned(), labels),
            ])),
        };
        self.docker
            .events(Some(options))
            .take_while(|event| futures::future::ready(event.is_ok()))
            .filter_map(move |event| {
                let attributes = event.ok().and_then(|e| e.actor).and_then(|a| a.attributes);
                futures::future::ready(attributes.and_then(|mut a| a.remove(label)))
            })
            .boxed()
    }
}

fn absent_is_none<T>(result: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(RuntimeError::NotFound(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// "host:5000/a/b:tag" or "a@sha256:…" in repository and tag (or digest); "latest" without.
fn split_reference(reference: &str) -> (&str, &str) {
    if let Some((repository, digest)) = reference.split_once('@') {
        return (repository, digest);
    }
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

fn explain(host: &str, what: &'static str, error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { status_code: 404, message } => {
            RuntimeError::NotFound(message)
        }
        // Stopping what is stopped already.
        Error::DockerResponseServerError { status_code: 304, message } => {
            RuntimeError::NotFound(message)
        }
        Error::DockerResponseServerError { message, .. } => RuntimeError::Failed(message),
        Error::DockerStreamError { error } => RuntimeError::Failed(error),
        Error::RequestTimeoutError => RuntimeError::Timeout(what),
        Error::SocketNotFoundError(_)
        | Error::HyperLegacyError { .. }
        | Error::HyperResponseError { .. }
        | Error::IOError { .. } => RuntimeError::Unavailable(unavailable(host, &error)),
        other => RuntimeError::Failed(format!("{what}: {other}")),
    }
}

/// Says which engine did not answer, why, and what to do about it.
fn unavailable(host: &str, error: &Error) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    let advice = if reason.contains("ermission denied") {
        "run the agent as root or add its user to the group \"docker\""
    } else {
        "start Docker (for instance \"systemctl start docker\"), or name another engine with \
         --docker unix:///PATH"
    };
    format!("cannot reach Docker at {host}: {reason}; {advice}")
}

#[cfg(test)]
#[path = "adapter_test.rs"]
mod tests;
