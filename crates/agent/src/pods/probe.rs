//! Probes and hooks: whether a container has started, is ready and is alive, and what it runs
//! at its beginning and end.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::debug;

use crate::runtime::{Attached, ExecSpec, Pieces, Process, Runtime, RuntimeError};
use crate::tls;

/// Kubernetes' defaults.
const PERIOD: i32 = 10;
const TIMEOUT: i32 = 1;
const FAILURES: i32 = 3;
/// Bytes of an exec's output that a failure's message shows.
const SHOWN: usize = 1024;
/// A program that has closed its output ends within this time, within the probe's own limit.
const EXIT_POLL: Duration = Duration::from_millis(20);

/// Where a container is reached.
#[derive(Clone)]
pub struct Target {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// The engine's id of the container.
    pub id: String,
    /// Address of the pod.
    pub ip: IpAddr,
    /// As the pod has it: its named ports.
    pub container: Arc<Container>,
}

/// How often, how long, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Before the first.
    pub delay: Duration,
    /// Between two.
    pub period: Duration,
    /// For one.
    pub timeout: Duration,
    /// In a row until it counts.
    pub successes: u32,
    /// In a row until it counts.
    pub failures: u32,
}

impl Rhythm {
    /// With Kubernetes' defaults.
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        let seconds = |given: Option<i32>, default: i32| {
            let seconds = given.filter(|s| *s > 0).unwrap_or(default);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        let count = |given: Option<i32>, default: i32| {
            u32::try_from(given.filter(|n| *n > 0).unwrap_or(default)).unwrap_or(1)
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, PERIOD),
            timeout: seconds(probe.timeout_seconds, TIMEOUT),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, FAILURES),
        }
    }
}

/// Counts results in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    rhythm: Rhythm,
    last: Option<bool>,
    row: u32,
}

impl Counter {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(rhythm: Rhythm) -> Self {
        Self { rhythm, last: None, row: 0 }
    }

    /// One more result; the verdict, when there are enough in a row.
    pub fn count(&mut self, good: bool) -> Option<bool> {
        self.row = if self.last == Some(good) { self.row.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let enough = if good { self.rhythm.successes } else { self.rhythm.failures };
        (self.row >= enough).then_some(good)
    }
}

/// Why a check did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// The container does not do what it should.
    Container(String),
    /// The engine could not say: nothing is known of the container.
    Engine(String),
}

impl Fault {
    fn message(self) -> String {
        match self {
            Self::Container(message) | Self::Engine(message) => message,
        }
    }
}

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Failed(message) => Self::Container(message),
            // An engine that was started again does not know of the program any more.
            RuntimeError::Unavailable(_) | RuntimeError::Timeout(_) | RuntimeError::NotFound(_) => {
                Self::Engine(error.to_string())
            }
        }
    }
}

/// Probes in its rhythm, until `verdict` says that it is enough. `failed` hears of every failure.
/// What the engine could not find out counts neither way.
pub async fn watch(
    target: &Target,
    probe: &Probe,
    failed: impl Fn(&str),
    mut verdict: impl FnMut(Result<(), String>) -> bool,
) {
    let rhythm = Rhythm::of(probe);
    let mut counter = Counter::new(rhythm);
    tokio::time::sleep(rhythm.delay).await;
    let mut ticks = tokio::time::interval(rhythm.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = match once(target, probe, rhythm.timeout).await {
            Ok(()) => Ok(()),
            Err(Fault::Container(message)) => {
                failed(&message);
                Err(message)
            }
            Err(Fault::Engine(message)) => {
                debug!(container = target.id, message, "cannot probe now");
                continue;
            }
        };
        if counter.count(result.is_ok()).is_some() && verdict(result) {
            return;
        }
    }
}

/// Probes once.
async fn once(target: &Target, probe: &Probe, limit: Duration) -> Result<(), Fault> {
    let late = || format!("no answer within {limit:?}");
    if let Some(action) = &probe.exec {
        // The limit is the program's: how long the engine takes to start it does not count.
        let mut program = match Program::start(target, action).await {
            // An engine that answers otherwise can start nothing in this container.
            Err(RuntimeError::Timeout(_)) => {
                target.runtime.info().await?;
                return Err(Fault::Container("no program can be started in it".into()));
            }
            started => started?,
        };
        if let Ok(ended) = timeout(limit, Box::pin(program.end())).await {
            return ended;
        }
        // It is late only if the engine still answers: else that may be what is slow.
        target.runtime.exec_result(&program.exec).await?;
        return Err(Fault::Container(late()));
    }
    let check = async {
        if let Some(action) = &probe.http_get {
            http(target, action).await
        } else if let Some(action) = &probe.tcp_socket {
            tcp(target, action).await
        } else if let Some(action) = &probe.grpc {
            grpc(target, action).await
        } else {
            Ok(())
        }
    };
    let checked = timeout(limit, Box::pin(check)).await.unwrap_or_else(|_| Err(late()));
    checked.map_err(Fault::Container)
}

/// Runs a hook. It has no limit of its own: whoever calls it has.
///
/// # Errors
/// When it fails.
pub async fn hook(target: &Target, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let run = async { Program::start(target, action).await?.end().await };
        run.await.map_err(Fault::message)
    } else if let Some(action) = &handler.http_get {
        http(target, action).await
    } else if let Some(action) = &handler.tcp_socket {
        tcp(target, action).await
    } else {
        let seconds = handler.sleep.as_ref().map_or(0, |sleep| sleep.seconds);
        tokio::time::sleep(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))).await;
        Ok(())
    }
}

/// A program that was started in the container. It is killed when nobody waits for its end any
/// longer.
struct Program {
    runtime: Arc<dyn Runtime>,
    exec: String,
    _input: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pieces,
    ended: bool,
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (runtime, exec) = (self.runtime.clone(), std::mem::take(&mut self.exec));
        // Task "exec kill": one call; when it fails, the program ends with its container.
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn(async move {
                let _ = runtime.exec_kill(&exec).await;
            });
        }
    }
}

impl Program {
    async fn start(target: &Target, action: &ExecAction) -> Result<Self, RuntimeError> {
        let spec = ExecSpec {
            command: action.command.clone().unwrap_or_default(),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let runtime = target.runtime.clone();
        let Attached { process, input, output } = runtime.exec(&target.id, &spec).await?;
        let Process::Exec(exec) = process else {
            return Err(RuntimeError::Failed("the engine has started no program".into()));
        };
        Ok(Self { runtime, exec, _input: input, output, ended: false })
    }

    /// Waits for its end, which is good when its exit code is 0.
    async fn end(&mut self) -> Result<(), Fault> {
        let mut shown = Vec::new();
        while let Some(piece) = self.output.next().await {
            let (_, data) = piece?;
            let room = SHOWN.saturating_sub(shown.len());
            shown.extend_from_slice(&data[..data.len().min(room)]);
        }
        loop {
            match self.runtime.exec_result(&self.exec).await? {
                None => tokio::time::sleep(EXIT_POLL).await,
                Some(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Some(code) => {
                    self.ended = true;
                    let text = String::from_utf8_lossy(&shown);
                    let failed = format!("exit code {code}: {}", text.trim());
                    return Err(Fault::Container(failed));
                }
            }
        }
    }
}

/// The number of a port that may be named.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let mut ports = container.ports.iter().flatten();
            ports.find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port)
        }),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("the container has no port {port:?}"))
}

/// Connects; a host that the pod names may be a name.
async fn connect(target: &Target, host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let connected = match host.filter(|host| !host.is_empty()) {
        Some(host) => TcpStream::connect((host, port)).await,
        None => TcpStream::connect((target.ip, port)).await,
    };
    connected.map_err(|e| format!("cannot connect to port {port}: {e}"))
}

async fn tcp(target: &Target, action: &TCPSocketAction) -> Result<(), String> {
    let port = port(&target.container, &action.port)?;
    connect(target, action.host.as_deref(), port).await.map(drop)
}

async fn http(target: &Target, action: &HTTPGetAction) -> Result<(), String> {
    let port = port(&target.container, &action.port)?;
    let stream = connect(target, action.host.as_deref(), port).await?;
    let host = action.host.clone().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| match target.ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    if action.scheme.as_deref() == Some("HTTPS") {
        // As in Kubernetes: what the certificate says is of no interest to a probe.
        let stream = tls::unverified(stream, &host).await.map_err(|e| e.to_string())?;
        return request(stream, &host, port, action).await;
    }
    request(stream, &host, port, action).await
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    port: u16,
    action: &HTTPGetAction,
) -> Result<(), String> {
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = hyper::Request::get(path)
        .header("User-Agent", concat!("kube-probe/quorate-", env!("CARGO_PKG_VERSION")))
        .header("Accept", "*/*")
        .header("Connection", "close");
    let headers = || action.http_headers.iter().flatten();
    if !headers().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", format!("{host}:{port}"));
    }
    for header in headers() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(String::new()).map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The server closed it, perhaps just after its answer, which is there then.
        _ = connection => answer.await,
    };
    let status = answer.map_err(|e| e.to_string())?.status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

async fn grpc(target: &Target, action: &GRPCAction) -> Result<(), String> {
    let port = u16::try_from(action.port).unwrap_or_default();
    let address = std::net::SocketAddr::new(target.ip, port);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|e| format!("cannot connect to port {port}: {e}"))?;
    let service = action.service.clone().unwrap_or_default();
    let answer = HealthClient::new(channel).check(HealthCheckRequest { service }).await;
    let status = answer.map_err(|e| e.message().to_owned())?.into_inner().status();
    if status == ServingStatus::Serving {
        Ok(())
    } else {
        Err(format!("service unhealthy (responded with {:?})", status.as_str_name()))
    }
}

#[cfg(test)]
#[path = "probe_test.rs"]
mod tests;
