//! A master of one session for the agent to talk to, and Docker by its command line.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_agent::{AgentError, AgentOptions};
use quorate_proto::v1;
use quorate_proto::v1::agent_frame::Frame;
use quorate_proto::v1::agent_message::Message as FromAgent;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_proto::v1::nodes_server::{Nodes, NodesServer};
use quorate_proto::v1::output::Data;
use quorate_proto::v1::stream_request::Kind;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub const IMAGE: &str = "quorate-agent-test/busybox:1";
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `docker`, fails with its words.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("these tests need the command \"docker\"");
    assert!(
        output.status.success(),
        "these tests need a running Docker: docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An image with busybox and nothing else, from no registry.
pub fn build_image() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy("/bin/busybox", folder.path().join("busybox"))
        .expect("these tests need /bin/busybox, statically linked (Debian: busybox-static)");
    let text = "FROM scratch\nCOPY busybox /bin/busybox\nENV PATH=/bin\n\
                RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    std::fs::write(folder.path().join("Dockerfile"), text).unwrap();
    docker(&["build", "-q", "-t", IMAGE, folder.path().to_str().unwrap()]);
}

#[derive(Default)]
struct Heard {
    out: Option<mpsc::Sender<Result<v1::MasterMessage, Status>>>,
    registered: Option<Value>,
    /// Heartbeats since an agent registered last.
    calm: u64,
    statuses: Vec<(String, Value, bool)>,
    heartbeats: u64,
    log: Vec<u8>,
    log_end: Option<String>,
}

struct Service {
    cluster: String,
    url: String,
    heard: Arc<Mutex<Heard>>,
}

#[tonic::async_trait]
impl Nodes for Service {
    type SessionStream = ReceiverStream<Result<v1::MasterMessage, Status>>;
    type StreamStream = ReceiverStream<Result<v1::Input, Status>>;
    type LogsStream = ReceiverStream<Result<v1::LogChunk, Status>>;
    type ExecStream = ReceiverStream<Result<v1::Output, Status>>;
    type AttachStream = ReceiverStream<Result<v1::Output, Status>>;
    type PortForwardStream = ReceiverStream<Result<v1::Output, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut frames = request.into_inner();
        let (input, receiver) = mpsc::channel(8);
        let heard = self.heard.clone();
        tokio::spawn(async move {
            let mut end = None;
            // A stream that is reset instead of ended panics here, and the test waits in vain.
            while let Some(v1::AgentFrame { frame: Some(frame) }) = frames.message().await.unwrap()
            {
                match frame {
                    Frame::Output(v1::Output { data: Some(Data::Stdout(data)) }) => {
                        heard.lock().log.extend_from_slice(&data);
                    }
                    Frame::Failure(failure) => end = Some(failure.message),
                    _ => {}
                }
            }
            heard.lock().log_end = Some(end.unwrap_or_default());
            drop(input);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn exec(
        &self,
        _request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_usage(
        &self,
        _request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn create_token(
        &self,
        _request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn attach(
        &self,
        _request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn port_forward(
        &self,
        _request: Request<Streaming<v1::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, receiver) = mpsc::channel(64);
        let mut incoming = request.into_inner();
        let heard = self.heard.clone();
        let welcome = ToAgent::Welcome(v1::Welcome {
            cluster_id: self.cluster.clone(),
            master_name: "m1".into(),
            heartbeat_interval_ms: 100,
            leadership: None,
            master_urls: vec![self.url.clone()],
        });
        out.send(Ok(v1::MasterMessage { message: Some(welcome) })).await.unwrap();
        tokio::spawn(async move {
            while let Ok(Some(v1::AgentMessage { message: Some(message) })) =
                incoming.message().await
            {
                match message {
                    FromAgent::Register(register) => {
                        let older = {
                            let mut heard = heard.lock();
                            heard.registered = serde_json::from_slice(&register.node_json).ok();
                            heard.calm = 0;
                            heard.out.replace(out.clone())
                        };
                        // As real masters do: a node has one session.
                        if let Some(older) = older {
                            let _ = older.send(Err(Status::unavailable("a newer session"))).await;
                        }
                    }
                    FromAgent::Heartbeat(_) => {
                        let mut heard = heard.lock();
                        heard.heartbeats += 1;
                        heard.calm += 1;
                    }
                    FromAgent::Status(batch) => {
                        for pod in batch.pods {
                            let status = serde_json::from_slice(&pod.status_json).unwrap();
                            heard.lock().statuses.push((pod.name, status, pod.terminated));
                        }
                        let ack = v1::StatusAck { sequence: batch.sequence, ..Default::default() };
                        let message = Some(ToAgent::StatusAck(ack));
                        let _ = out.send(Ok(v1::MasterMessage { message })).await;
                    }
                    FromAgent::Usage(_) | FromAgent::Holding(_) => {}
                }
            }
            heard.lock().out.take_if(|current| current.same_channel(&out));
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn logs(
        &self,
        _request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A cluster of one pretended master and one real agent. Removes its containers at the end.
pub struct Cluster {
    pub id: String,
    cidr: String,
    heard: Arc<Mutex<Heard>>,
    url: String,
    server: CancellationToken,
    folder: tempfile::TempDir,
    agent: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), AgentError>>)>,
    term: u64,
}

impl Cluster {
    /// A master, and an agent with a pod network of its own.
    pub async fn start(name: &str, subnet: u8) -> Self {
        Self::start_at("127.0.0.1", name, subnet).await
    }

    /// The agent is told that its master is on this host; the master itself names an address.
    pub async fn start_at(host: &str, name: &str, subnet: u8) -> Self {
        build_image();
        let id = format!("{name}-{}", std::process::id());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{host}:{}", address.port());
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let named = format!("http://{address}");
        let service = Service { cluster: id.clone(), url: named, heard: heard.clone() };
        let server = CancellationToken::new();
        let stop = server.clone();
        tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(NodesServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener));
            stop.run_until_cancelled(serving).await
        });
        let mut cluster = Self {
            id,
            cidr: format!("10.199.{subnet}.0/24"),
            heard,
            url,
            server,
            folder: tempfile::tempdir().unwrap(),
            agent: None,
            term: 1,
        };
        cluster.start_agent();
        cluster.until("registered", |heard| heard.registered.is_some()).await;
        cluster
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn start_agent(&mut self) {
        let options = AgentOptions::new(
            "n1",
            vec![self.url.clone()],
            self.folder.path().to_owned(),
            "127.0.1.9".parse().unwrap(),
        );
        let cancel = CancellationToken::new();
        let task = tokio::spawn(quorate_agent::run(options, cancel.clone()));
        self.agent = Some((cancel, task));
    }

    pub async fn stop_agent(&mut self) {
        let (cancel, task) = self.agent.take().unwrap();
        cancel.cancel();
        task.await.unwrap().unwrap();
        self.heard.lock().registered = None;
        self.heard.lock().statuses.clear();
    }

    /// Waits until one session has sent so many heartbeats while no other began.
    pub async fn calm(&self, heartbeats: u64) {
        self.until("calm", |heard| heard.calm >= heartbeats).await;
    }

    pub async fn agent_registered(&self) {
        self.until("registered again", |heard| heard.registered.is_some()).await;
    }

    /// The master says in full what the node shall run.
    pub async fn assign(&mut self, objects: &[Value]) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "spec": {"podCIDR": self.cidr},
        });
        let set = objects.iter().chain([&node]).map(|value| v1::Object {
            kind: Some(v1::KindRef {
                api_version: value["apiVersion"].as_str().unwrap().into(),
                kind: value["kind"].as_str().unwrap().into(),
            }),
            namespace: value["metadata"]["namespace"].as_str().unwrap_or_default().into(),
            name: value["metadata"]["name"].as_str().unwrap().into(),
            uid: value["metadata"]["uid"].as_str().unwrap_or_default().into(),
            revision: 1,
            json: serde_json::to_vec(value).unwrap().into(),
        });
        let message = v1::Assignments {
            term: self.term,
            revision: 1,
            full: true,
            set: set.collect(),
            ..v1::Assignments::default()
        };
        self.send(ToAgent::Assignments(message)).await;
    }

    async fn send(&self, message: ToAgent) {
        self.until("connected", |heard| heard.out.is_some()).await;
        let out = self.heard.lock().out.clone().unwrap();
        out.send(Ok(v1::MasterMessage { message: Some(message) })).await.unwrap();
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&Heard) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done(&self.heard.lock()) {
            if let Some((_, task)) = &self.agent {
                assert!(!task.is_finished(), "the agent ended; waiting until {what}");
            }
            let statuses = self.heard.lock().statuses.last().cloned();
            assert!(Instant::now() < deadline, "not {what} in time: {statuses:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a status of a pod, from now or earlier, and answers it.
    pub async fn status(
        &self,
        pod: &str,
        what: &str,
        good: impl Fn(&Value, bool) -> bool,
    ) -> Value {
        let mut found = Value::Null;
        self.until(what, |heard| {
            let fits = heard.statuses.iter().rev().find(|(n, s, t)| n == pod && good(s, *t));
            found = fits.map(|(_, status, _)| status.clone()).unwrap_or_default();
            !found.is_null()
        })
        .await;
        found
    }

    /// Reads a log to its end.
    pub async fn log(&self, pod: &str, options: v1::LogOptions) -> Result<String, String> {
        {
            let mut heard = self.heard.lock();
            heard.log.clear();
            heard.log_end = None;
        }
        let request = v1::StreamRequest {
            id: 1,
            namespace: "default".into(),
            pod: pod.into(),
            uid: pod.into(),
            kind: Some(Kind::Logs(options)),
        };
        self.send(ToAgent::StreamRequest(request)).await;
        self.until("logged", |heard| heard.log_end.is_some()).await;
        let heard = self.heard.lock();
        match heard.log_end.as_deref() {
            Some("") => Ok(String::from_utf8(heard.log.clone()).unwrap()),
            other => Err(other.unwrap_or_default().to_owned()),
        }
    }

    /// Ids of the cluster's containers, running or not.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=quorate.dev/cluster={}", self.id);
        docker(&["ps", "-aq", "--no-trunc", "--filter", &filter])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    pub async fn until_containers(&self, count: usize) {
        let deadline = Instant::now() + LIMIT;
        while self.containers().len() != count {
            assert!(Instant::now() < deadline, "{:?}, not {count}", self.containers());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((cancel, _)) = &self.agent {
            cancel.cancel();
        }
        self.server.cancel();
        let filter = format!("label=quorate.dev/cluster={}", self.id);
        for id in self.containers() {
            let _ = Command::new("docker").args(["rm", "-f", &id]).output();
        }
        let networks = docker(&["network", "ls", "-q", "--filter", &filter]);
        for id in networks.lines() {
            let _ = Command::new("docker").args(["network", "rm", id]).output();
        }
    }
}

/// A pod whose containers each run a shell script.
pub fn pod(name: &str, policy: &str, scripts: &[(&str, &str)]) -> Value {
    let containers: Vec<Value> = scripts
        .iter()
        .map(|(name, script)| {
            json!({
                "name": name, "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", script],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            })
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "restartPolicy": policy, "terminationGracePeriodSeconds": 1,
            "containers": containers, "volumes": [{"name": "shared", "emptyDir": {}}],
            "automountServiceAccountToken": false,
        },
    })
}
