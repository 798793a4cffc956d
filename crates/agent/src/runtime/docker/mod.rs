//! Containers by Docker: `adapter` calls its API, `spec` translates (purely), and the
//! `Docker` value here joins the two to a [`Runtime`].

mod adapter;
mod engine;
mod pause;
pub mod spec;

pub use engine::{Purged, Subnet, purge, subnets};

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ImageInspect;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use quorate_objects::net::Ipv4Net;
use tokio::sync::{OnceCell, Semaphore};
use tracing::{info, warn};

use self::adapter::Adapter;
use self::spec::{Owner, label};
use super::{
    Attached, ContainerSpec, ExecSpec, ImageError, ImageInfo, Io, LogQuery, Process, Record,
    Runtime, RuntimeError, RuntimeInfo, Sample, SandboxSpec, VolumeSpec,
};
use crate::network;

/// Starts under way at the same time; more would only make each slower.
const CONCURRENT_STARTS: usize = 4;

/// Pulls under way at the same time. A registry may be slow or dead: no start waits for it.
const CONCURRENT_PULLS: usize = 4;

/// Measurements under way at the same time.
const CONCURRENT_SAMPLES: usize = 4;

/// Docker as the runtime of one node.
pub struct Docker {
    adapter: Adapter,
    owner: Owner,
    starts: Semaphore,
    pulls: Semaphore,
    pause: OnceCell<()>,
}

impl Docker {
    /// Finds the engine.
    ///
    /// # Errors
    /// When it does not answer; the message says what to do.
    pub async fn connect(host: &str, cluster: &str, node: &str) -> Result<Self, RuntimeError> {
        Ok(Self {
            adapter: Adapter::connect(host).await?,
            owner: Owner { cluster: cluster.to_owned(), node: node.to_owned() },
            starts: Semaphore::new(CONCURRENT_STARTS),
            pulls: Semaphore::new(CONCURRENT_PULLS),
            pause: OnceCell::new(),
        })
    }

    /// Builds the sandbox image, from nothing but bytes that we carry along.
    async fn ensure_pause(&self) -> Result<(), RuntimeError> {
        self.pause
            .get_or_try_init(|| async {
                if self.adapter.image(spec::PAUSE_IMAGE).await?.is_some() {
                    return Ok(());
                }
                let architecture = self.adapter.architecture().await?;
                let program = pause::program(&architecture).ok_or_else(|| {
                    RuntimeError::Failed(format!(
                        "no sandbox program for the architecture {architecture}"
                    ))
                })?;
                let context = pause_context(&program)
                    .map_err(|e| RuntimeError::Failed(format!("cannot pack an image: {e}")))?;
                self.adapter.build(spec::PAUSE_IMAGE, context).await?;
                info!(image = spec::PAUSE_IMAGE, "built the sandbox image");
                Ok(())
            })
            .await
            .copied()
    }

    async fn run(
        &self,
        name: &str,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<(), (Option<String>, RuntimeError)> {
        let id = match self.adapter.create(name, body.clone()).await {
            Ok(id) => id,
            // Left from an attempt whose answer we never got.
            Err(RuntimeError::Failed(message)) if message.contains("is already in use") => {
                self.adapter.remove(name).await.map_err(|e| (None, e))?;
                self.adapter.create(name, body).await.map_err(|e| (None, e))?
            }
            Err(e) => return Err((None, e)),
        };
        self.adapter.start(&id).await.map_err(|e| (Some(id), e))
    }
}

fn pause_context(program: &[u8]) -> std::io::Result<Bytes> {
    let dockerfile = format!(
        "FROM scratch\nCOPY pause /pause\nLABEL quorate.dev/image=pause\nENTRYPOINT [\"/pause\"]\n\
         STOPSIGNAL SIGTERM\n# {}\n",
        spec::PAUSE_IMAGE
    );
    let mut archive = tar::Builder::new(Vec::new());
    for (path, data, mode) in
        [("Dockerfile", dockerfile.as_bytes(), 0o644), ("pause", program, 0o755)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_cksum();
        archive.append_data(&mut header, path, data)?;
    }
    Ok(archive.into_inner()?.into())
}

#[async_trait]
impl Runtime for Docker {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        self.adapter.info().await
    }

    async fn ensure_network(&self, cidr: &str) -> Result<(), RuntimeError> {
        let name = self.owner.network();
        if let Some(present) = self.adapter.network(&name).await? {
            let subnets = present.ipam.and_then(|i| i.config).unwrap_or_default();
            if subnets.iter().any(|c| c.subnet.as_deref() == Some(cidr)) {
                network::allow_between_bridges().await;
                return Ok(());
            }
            // The node got another range. Docker refuses while pods still use the old one.
            self.adapter.remove_network(&name).await?;
        }
        if let Err(error) = self.adapter.create_network(spec::network(&self.owner, cidr)).await {
            let overlaps = |other: &Subnet| {
                cidr.parse().is_ok_and(|range: Ipv4Net| range.overlaps(&other.range))
            };
            let others = self.adapter.subnets().await.unwrap_or_default();
            let others: Vec<String> = others
                .iter()
                .filter(|other| overlaps(other))
                .map(|other| format!("{} ({})", other.network, other.range))
                .collect();
            let hint = if others.is_empty() {
                String::new()
            } else {
                format!(
                    "; it overlaps with the Docker network {}: if nothing needs that, \"docker \
                     network rm\" it, else start the cluster with another pod range",
                    others.join(", ")
                )
            };
            return Err(RuntimeError::Failed(format!(
                "cannot make the pod network {name} with {cidr}: {error}{hint}"
            )));
        }
        info!(network = name, cidr, "made the pod network");
        network::allow_between_bridges().await;
        Ok(())
    }

    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Record>, RuntimeError> {
        let mut records = Vec::new();
        for summary in self.adapter.list(self.owner.filters(pod_uid)).await? {
            let Some(id) = summary.id else { continue };
            if let Some(inspected) = self.adapter.inspect(&id).await? {
                records.extend(spec::record(&self.owner, inspected));
            }
        }
        Ok(records)
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let _permit = self.starts.acquire().await;
        self.ensure_pause().await?;
        let name = spec::container_name(&spec.pod, "POD", spec.attempt);
        let body = spec::sandbox(&self.owner, spec);
        let Err((id, error)) = self.run(&name, body).await else { return Ok(()) };
        if let Some(id) = id {
            // Without its network it is of no use; a later attempt makes a new one.
            if let Err(e) = self.adapter.remove(&id).await {
                warn!(pod = %spec.pod, error = %e, "cannot remove a sandbox that did not start");
            }
        }
        Err(error)
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, RuntimeError> {
        let found = self.adapter.image(image).await?;
        let user = |found: ImageInspect| found.config.and_then(|config| config.user);
        Ok(found.map(|found| ImageInfo { user: user(found).unwrap_or_default() }))
    }

    async fn pull_image(&self, image: &str) -> Result<(), ImageError> {
        let _permit = self.pulls.acquire().await;
        match self.adapter.pull(image).await {
            Ok(()) => Ok(()),
            Err(error @ RuntimeError::Unavailable(_)) => Err(error.into()),
            Err(error) => {
                Err(ImageError::Pull { image: image.to_owned(), message: error.to_string() })
            }
        }
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let _permit = self.starts.acquire().await;
        let name = spec::container_name(&spec.pod, &spec.name, spec.attempt);
        match self.run(&name, spec::container(&self.owner, spec)).await {
            Ok(()) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        let volume = match self.adapter.volume(&spec.name).await? {
            Some(volume) => volume,
            None => self.adapter.create_volume(spec::volume(&self.owner, spec)).await?,
        };
        Ok(PathBuf::from(volume.mountpoint))
    }

    async fn remove_volume(&self, name: &str) -> Result<(), RuntimeError> {
        let Some(volume) = self.adapter.volume(name).await? else { return Ok(()) };
        if volume.labels.get(label::CLUSTER) != Some(&self.owner.cluster) {
            // Somebody has made a PersistentVolume of it; that is no leave to remove it.
            let text = format!("the Docker volume {name} is not this cluster's; remove it by hand");
            return Err(RuntimeError::Failed(text));
        }
        self.adapter.remove_volume(name).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.adapter.stop(id, grace).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.adapter.remove(id).await
    }

    async fn logs(
        &self,
        id: &str,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        if self.adapter.inspect(id).await?.is_none() {
            return Err(RuntimeError::NotFound("the container is gone".into()));
        }
        Ok(self.adapter.logs(id, query))
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Attached, RuntimeError> {
        self.adapter.exec(id, spec).await.map(|(_, attached)| attached)
    }

    async fn exec_result(&self, exec: &str) -> Result<Option<i32>, RuntimeError> {
        self.adapter.exec_state(exec).await.map(|(code, _)| code)
    }

    async fn exec_kill(&self, exec: &str) -> Result<(), RuntimeError> {
        // Docker has no call for it; its process is one of this machine's.
        let (None, pid) = self.adapter.exec_state(exec).await? else { return Ok(()) };
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1);
        let Some(pid) = pid else { return Ok(()) };
        match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(e) => Err(RuntimeError::Failed(format!("cannot end process {pid}: {e}"))),
        }
    }

    async fn attach(&self, id: &str, stdin: bool) -> Result<Attached, RuntimeError> {
        self.adapter.attach(id, stdin).await
    }

    async fn resize(&self, process: &Process, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        self.adapter.resize(process, columns, rows).await
    }

    async fn connect(&self, sandbox: &str, port: u16) -> Result<Box<dyn Io>, RuntimeError> {
        let inspected = self.adapter.inspect(sandbox).await?;
        let pid = inspected.and_then(|i| i.state).and_then(|s| s.pid).filter(|pid| *pid > 0);
        let gone = || RuntimeError::NotFound("the pod's network is gone".into());
        let stream = network::connect_inside(pid.ok_or_else(gone)?, port).await;
        let stream = stream.map_err(|e| {
            RuntimeError::Failed(format!("cannot connect to port {port} of the pod: {e}"))
        })?;
        Ok(Box::new(stream))
    }

    async fn samples(&self, ids: &[String]) -> Result<Vec<Sample>, RuntimeError> {
        let samples = ids.iter().cloned().map(|id| {
            let adapter = self.adapter.clone();
            async move { adapter.sample(&id).await }
        });
        let samples = futures::stream::iter(samples).buffer_unordered(CONCURRENT_SAMPLES);
        // A container that has ended meanwhile has no sample.
        Ok(samples.filter_map(|sample| std::future::ready(sample.ok().flatten())).collect().await)
    }

    async fn events(&self) -> Result<BoxStream<'static, String>, RuntimeError> {
        self.adapter.info().await?;
        Ok(self.adapter.events(self.owner.filters(None), label::UID).boxed())
    }
}

#[cfg(test)]
#[path = "docker_test.rs"]
mod tests;
