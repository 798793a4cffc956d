//! What the agent asks of a container engine. The reconcile loop knows only this trait; it
//! never sees Docker.

pub mod docker;
pub mod hollow;
mod spec;

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::spec::{
    Bind, ContainerSpec, Cpu, Dns, HostPort, PidNamespace, Place, SandboxSpec, Security, VolumeSpec,
};

/// What went wrong in the container engine.
#[derive(Debug, Clone, Error)]
pub enum RuntimeError {
    /// The engine cannot be reached; the message says where it was sought and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// It did not answer in time.
    #[error("the container runtime did not finish \"{0}\" in time")]
    Timeout(&'static str),
    /// The thing does not exist (any longer).
    #[error("{0}")]
    NotFound(String),
    /// It refused.
    #[error("{0}")]
    Failed(String),
}

/// Why an image is not there.
#[derive(Debug, Clone, Error)]
pub enum ImageError {
    /// `imagePullPolicy: Never` and it is not present.
    #[error("image \"{0}\" is not present on the node and imagePullPolicy is Never")]
    NeverPull(String),
    /// The pull failed.
    #[error("cannot pull image \"{image}\": {message}")]
    Pull {
        /// As the pod names it.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// The engine is at fault, not the image.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// When to pull, as in a container's `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Even when it is present.
    Always,
    /// Only when it is missing.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// Which pod something belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
}

impl std::fmt::Display for PodRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The part that a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Holds the pod's network.
    Sandbox,
    /// Runs to its end before the others start.
    Init,
    /// Does the pod's work.
    App,
    /// Added to a running pod to look into it.
    Ephemeral,
}

impl Role {
    /// As written in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Init => "init",
            Self::App => "app",
            Self::Ephemeral => "ephemeral",
        }
    }

    /// Reads what `as_str` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "sandbox" => Some(Self::Sandbox),
            "init" => Some(Self::Init),
            "app" => Some(Self::App),
            "ephemeral" => Some(Self::Ephemeral),
            _ => None,
        }
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Not started yet, or its start failed (then `Record::error` says why).
    Created,
    /// Running (or paused).
    Running,
    /// Ended.
    Exited,
}

/// One container that exists in the engine and carries our labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The engine's id.
    pub id: String,
    /// Whose it is.
    pub pod: PodRef,
    /// Its part.
    pub role: Role,
    /// Name in the pod's spec; empty for a sandbox.
    pub container: String,
    /// 0, 1, … : how often it had been started before.
    pub attempt: u32,
    /// How many quick failures in a row came before it.
    pub failures: u32,
    /// Id of the sandbox whose network it joined; empty for a sandbox.
    pub sandbox: String,
    /// Seconds that it gets to stop.
    pub grace: u32,
    /// As the pod names it.
    pub image: String,
    /// The engine's id of it.
    pub image_id: String,
    /// Where it is.
    pub state: RunState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Of the main process.
    pub exit_code: i32,
    /// Ended by the kernel for want of memory.
    pub oom_killed: bool,
    /// Why it could not be started.
    pub error: String,
    /// Address, for a running sandbox on a network of its own.
    pub ip: Option<IpAddr>,
    /// It runs, but the engine itself says that it is not ready.
    pub unready: bool,
}

impl Record {
    /// Did it end, or never begin because its start failed?
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == RunState::Exited || self.start_failed()
    }

    /// Could the engine not start it?
    #[must_use]
    pub fn start_failed(&self) -> bool {
        self.state == RunState::Created && !self.error.is_empty()
    }

    /// When it ended; for a failed start, when it was made.
    #[must_use]
    pub fn end_time(&self) -> Timestamp {
        self.finished_at.unwrap_or(self.created_at)
    }
}

/// What the engine says of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// As whom its program runs: a name or number, with or without a group; empty: as root.
    pub user: String,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default)]
pub struct RuntimeInfo {
    /// "docker".
    pub name: String,
    /// Its version.
    pub version: String,
}

/// How a container's log is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Wait for more.
    pub follow: bool,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only this many of the last lines.
    pub tail: Option<u64>,
    /// Only what came after this second (Unix time).
    pub since: Option<i64>,
    /// Leave out what came on standard output, or on standard error.
    pub without: Option<Output>,
}

/// Where a process writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A program to run in a container beside its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its standard input is connected.
    pub stdin: bool,
    /// Its standard output is connected.
    pub stdout: bool,
    /// Its standard error is connected.
    pub stderr: bool,
    /// It gets a terminal.
    pub tty: bool,
}

/// A process that one can talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// Started by `Runtime::exec`: the engine's id of it.
    Exec(String),
    /// The main process of the container with this id.
    Main(String),
}

/// What a process has written.
pub type Pieces = BoxStream<'static, Result<(Output, Bytes), RuntimeError>>;

/// Both directions of a process.
pub struct Attached {
    /// Which.
    pub process: Process,
    /// To its standard input; dropping it closes that.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes, until it ends.
    pub output: Pieces,
}

/// A connection into a pod.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What a container used until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The engine's id of the container.
    pub id: String,
    /// Processor time since its start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes of its working set.
    pub memory_bytes: u64,
}

/// A container engine, bound to one node of one cluster: it sees and touches only
/// containers that carry that node's labels.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Do containers really run, so that probes and hooks have somebody to talk to?
    fn runs_processes(&self) -> bool {
        true
    }

    /// Is it there? Cheap; used at start and to report the node's condition.
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;

    /// Makes the network from which pods get their addresses. Idempotent.
    async fn ensure_network(&self, cidr: &str) -> Result<(), RuntimeError>;

    /// All containers of this node, or of one pod of it.
    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Record>, RuntimeError>;

    /// Makes and starts a sandbox.
    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError>;

    /// What is known of an image that is there; none when it is not.
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, RuntimeError>;

    /// Gets the image from its registry.
    async fn pull_image(&self, image: &str) -> Result<(), ImageError>;

    /// Makes and starts a container. When only the start fails, the container stays and
    /// its record says why.
    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError>;

    /// Makes a volume unless it is there; answers the directory with its content.
    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<PathBuf, RuntimeError>;

    /// Removes a volume with its data. Fine when it is gone already.
    async fn remove_volume(&self, name: &str) -> Result<(), RuntimeError>;

    /// Asks it to end, and ends it after `grace`. Fine when it has ended already.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes it, running or not. Fine when it is gone already.
    async fn remove(&self, id: &str) -> Result<(), RuntimeError>;

    /// Its output, standard output and error in the order written.
    async fn logs(
        &self,
        id: &str,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError>;

    /// Runs a program in a running container.
    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Attached, RuntimeError>;

    /// Exit code of a program that `exec` started; none while it runs.
    async fn exec_result(&self, exec: &str) -> Result<Option<i32>, RuntimeError>;

    /// Ends a program that `exec` started. Fine when it has ended already.
    async fn exec_kill(&self, exec: &str) -> Result<(), RuntimeError>;

    /// Joins the main process of a running container.
    async fn attach(&self, id: &str, stdin: bool) -> Result<Attached, RuntimeError>;

    /// Tells a process the size of its terminal.
    async fn resize(&self, process: &Process, columns: u16, rows: u16) -> Result<(), RuntimeError>;

    /// Connects to a TCP port on the loopback address of a sandbox.
    async fn connect(&self, sandbox: &str, port: u16) -> Result<Box<dyn Io>, RuntimeError>;

    /// What the running containers have used.
    async fn samples(&self, ids: &[String]) -> Result<Vec<Sample>, RuntimeError>;

    /// Uids of pods of which a container changed. Ends when the connection is lost; what
    /// happened in between is not told, so the caller looks at everything again.
    async fn events(&self) -> Result<BoxStream<'static, String>, RuntimeError>;
}
