//! Streams between a caller and a pod: logs, exec, attach, port-forward.
//!
//! The master asks for a stream over the node's session; the agent opens `Nodes.Stream` on the
//! same connection, and from there on HTTP/2 does the flow control in both directions. When
//! either side drops its end, the other side's end is over, too.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::kinds;
use quorate_proto::v1;
use quorate_proto::v1::agent_frame::Frame;
use quorate_proto::v1::input::Data;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_proto::v1::stream_request::Kind;
use quorate_registry::Consistency;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::table::Session;
use crate::auth::User;
use crate::error::{bad_request, registry_status, status, unavailable};

/// Agents come back to a new master within this time.
const NODE_PATIENCE: Duration = Duration::from_secs(2);
/// How long the pod may take to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// An agent opens its end within this time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The first message of a call, or of an agent's stream, comes within this time.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Messages for the container that wait; then whoever sends waits.
const INPUT: usize = 8;

/// An agent's end, handed to the call that waits for it.
pub(crate) struct Joined {
    frames: Streaming<v1::AgentFrame>,
    input: mpsc::Sender<v1::Input>,
}

/// A stream with a pod. Dropping it ends the agent's side.
pub(crate) struct PodStream {
    /// To the container. Dropping it alone does not close the container's standard input:
    /// send `end` for that.
    pub input: mpsc::Sender<v1::Input>,
    /// What comes back.
    pub output: Output,
}

/// What comes from a pod, until its end.
pub(crate) struct Output {
    session: Arc<Session>,
    frames: Streaming<v1::AgentFrame>,
}

impl Output {
    /// The next piece; none at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<v1::output::Data, Status>> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.frames.message() => frame,
                () = self.session.ended.cancelled() => return Some(Err(lost(&self.session.node))),
            };
            return match frame {
                Ok(None) => None,
                Err(_) => Some(Err(lost(&self.session.node))),
                Ok(Some(frame)) => match frame.frame {
                    Some(Frame::Output(v1::Output { data: Some(data) })) => Some(Ok(data)),
                    Some(Frame::Failure(failure)) => Some(Err(failed(failure))),
                    _ => continue,
                },
            };
        }
    }
}

fn failed(failure: v1::StreamFailure) -> Status {
    let code = match failure.reason.as_str() {
        "NotFound" => Code::NotFound,
        "BadRequest" => Code::InvalidArgument,
        _ => Code::Internal,
    };
    let reason = if code == Code::Internal { "StreamFailed" } else { &failure.reason };
    status(code, reason, failure.message)
}

/// Opens a stream with a pod: a name of a container may be empty, the pod then has a default.
pub(crate) async fn open(
    shared: &Shared,
    namespace: &str,
    name: &str,
    mut kind: Kind,
) -> Result<PodStream, Status> {
    let read = shared.registry.get(&kinds::POD, namespace, name, Consistency::Linearizable);
    let object = tokio::time::timeout(READ_TIMEOUT, read)
        .await
        .map_err(|_| status(Code::DeadlineExceeded, "Timeout", "the pod could not be read"))?
        .map_err(registry_status)?;
    let pod = object.typed::<Pod>().map_err(registry_status)?;
    check(&pod, name, &mut kind)?;
    let node = quorate_objects::pod::node_name(&pod).filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| unscheduled(&pod, name))?;
    let session = shared.table.find(node, NODE_PATIENCE).await.ok_or_else(|| {
        let text = format!("node {node:?}, where pod {name:?} runs, is not connected");
        status(Code::Unavailable, "NodeNotConnected", text)
    })?;
    let ask = v1::StreamRequest {
        id: 0,
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        uid: object.uid().to_owned(),
        kind: Some(kind),
    };
    ask_agent(&session, ask).await
}

async fn ask_agent(session: &Arc<Session>, ask: v1::StreamRequest) -> Result<PodStream, Status> {
    let (sender, joined) = oneshot::channel();
    let waiting = session.expect_stream(sender);
    let ask = v1::StreamRequest { id: waiting.id, ..ask };
    if session.send(ToAgent::StreamRequest(ask)).await.is_none() {
        return Err(lost(&session.node));
    }
    let joined = tokio::select! {
        joined = tokio::time::timeout(OPEN_TIMEOUT, joined) => joined,
        () = session.ended.cancelled() => return Err(lost(&session.node)),
    };
    match joined {
        Ok(Ok(Joined { frames, input })) => {
            Ok(PodStream { input, output: Output { session: Arc::clone(session), frames } })
        }
        _ => Err(unavailable(format!("node {:?} did not open the stream in time", session.node))),
    }
}

/// An agent opens its end of a stream.
pub(crate) async fn join(
    shared: &Shared,
    caller: Option<Arc<User>>,
    mut frames: Streaming<v1::AgentFrame>,
) -> Result<BoxStream<'static, Result<v1::Input, Status>>, Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE, frames.message())
        .await
        .map_err(|_| status(Code::DeadlineExceeded, "Timeout", "no StreamOpen came"))??;
    let Some(Frame::Open(open)) = first.and_then(|frame| frame.frame) else {
        return Err(bad_request("a stream begins with StreamOpen"));
    };
    super::session::check_node(caller.as_deref(), &open.node_name)?;
    let gone = || status(Code::NotFound, "NotFound", "nobody waits for this stream");
    let session = shared.table.now(&open.node_name).ok_or_else(gone)?;
    let waiting = session.take_stream(open.id).ok_or_else(gone)?;
    let (input, receiver) = mpsc::channel(INPUT);
    waiting.send(Joined { frames, input }).map_err(|_| gone())?;
    let cancel = shared.cancel.clone();
    let inputs = ReceiverStream::new(receiver).map(Ok);
    // When the caller has gone, this ends; a process that ends does not leave it open.
    Ok(inputs.take_until(cancel.cancelled_owned()).boxed())
}

/// A caller's messages after the first.
pub(crate) trait Request: Send + 'static {
    /// What the message says.
    fn part(self) -> Option<Part>;
}

/// Of a caller's message.
pub(crate) enum Part {
    /// The first: namespace, pod, what is asked.
    Start(String, String, Kind),
    /// All others.
    Input(v1::Input),
}

impl Request for v1::ExecRequest {
    fn part(self) -> Option<Part> {
        use v1::exec_request::Message;
        Some(match self.message? {
            Message::Start(s) => Part::Start(s.namespace, s.pod, Kind::Exec(s.options?)),
            Message::Input(input) => Part::Input(input),
        })
    }
}

impl Request for v1::AttachRequest {
    fn part(self) -> Option<Part> {
        use v1::attach_request::Message;
        Some(match self.message? {
            Message::Start(s) => Part::Start(s.namespace, s.pod, Kind::Attach(s.options?)),
            Message::Input(input) => Part::Input(input),
        })
    }
}

impl Request for v1::PortForwardRequest {
    fn part(self) -> Option<Part> {
        use v1::port_forward_request::Message;
        Some(match self.message? {
            Message::Start(s) => Part::Start(s.namespace, s.pod, Kind::PortForward(s.options?)),
            Message::Input(input) => Part::Input(input),
        })
    }
}

/// Serves a gRPC caller: its first message says what, the others go to the container.
pub(crate) async fn serve<R: Request>(
    shared: &Shared,
    caller: Option<Arc<User>>,
    mut requests: Streaming<R>,
) -> Result<BoxStream<'static, Result<v1::Output, Status>>, Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE, requests.message())
        .await
        .map_err(|_| status(Code::DeadlineExceeded, "Timeout", "no start came"))??;
    let Some(Part::Start(namespace, pod, kind)) = first.and_then(Request::part) else {
        return Err(bad_request("the first message must be a start with its options"));
    };
    shared.require_pod(caller.as_deref(), &namespace, &pod, &kind)?;
    let PodStream { input, output } = open(shared, &namespace, &pod, kind).await?;
    // Task "stream input": ends with the caller's messages, or with the answer below.
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(requests, input)));
    let next = |(mut output, pump): (Output, AbortOnDropHandle<()>)| async move {
        let item = output.next().await?.map(|data| v1::Output { data: Some(data) });
        Some((item, (output, pump)))
    };
    Ok(futures::stream::unfold((output, pump), next).boxed())
}

/// Passes the caller's messages on; the end of them is the end of the standard input.
async fn pump<R: Request>(mut requests: Streaming<R>, input: mpsc::Sender<v1::Input>) {
    loop {
        let next = match requests.message().await {
            Ok(Some(request)) => match request.part() {
                Some(Part::Input(input)) => input,
                _ => continue,
            },
            Ok(None) => v1::Input { data: Some(Data::End(true)) },
            // The caller has gone: dropping the sender tells the agent.
            Err(_) => return,
        };
        let end = next.data == Some(Data::End(true));
        if input.send(next).await.is_err() {
            return;
        }
        if end {
            // Open until the agent has sent its last: a closed sender means that nobody reads.
            input.closed().await;
            return;
        }
    }
}

/// Fills in the container, and refuses what cannot be.
fn check(pod: &Pod, name: &str, kind: &mut Kind) -> Result<(), Status> {
    match kind {
        Kind::Logs(options) => options.container = choose(pod, name, &options.container)?,
        Kind::Exec(options) => {
            if options.command.is_empty() {
                return Err(bad_request("no command is given"));
            }
            options.container = default_or(pod, name, &options.container)?;
            running(pod, name)?;
        }
        Kind::Attach(options) => {
            options.container = default_or(pod, name, &options.container)?;
            running(pod, name)?;
        }
        Kind::PortForward(options) => {
            if !(1..=65_535).contains(&options.port) {
                return Err(bad_request(format!("{} is not a port", options.port)));
            }
            running(pod, name)?;
        }
    }
    Ok(())
}

fn running(pod: &Pod, name: &str) -> Result<(), Status> {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some(phase @ ("Succeeded" | "Failed")) => Err(bad_request(format!(
            "cannot exec into a container in a completed pod; pod {name:?} is {phase}"
        ))),
        _ => Ok(()),
    }
}

/// Names a pod's default container, when it has several.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The container asked for, or the pod's default: the annotated one, or the first.
fn default_or(pod: &Pod, name: &str, wanted: &str) -> Result<String, Status> {
    if !wanted.is_empty() {
        return choose(pod, name, wanted);
    }
    let annotated = pod.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CONTAINER));
    let first = || pod.spec.as_ref().and_then(|s| s.containers.first()).map(|c| c.name.clone());
    annotated.cloned().or_else(first).ok_or_else(|| bad_request(format!("pod {name:?} is empty")))
}

/// The container asked for, or the only one.
fn choose(pod: &Pod, name: &str, wanted: &str) -> Result<String, Status> {
    let Some(spec) = &pod.spec else {
        return Err(bad_request(format!("pod {name:?} has no spec")));
    };
    let main: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init = spec.init_containers.iter().flatten().map(|c| c.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
    let all: Vec<&str> = main.iter().copied().chain(init).chain(ephemeral).collect();
    if wanted.is_empty() {
        return match main.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => Err(bad_request(format!(
                "pod {name:?} has several containers, choose one of: {}",
                all.join(", ")
            ))),
        };
    }
    if all.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    let text =
        format!("pod {name:?} has no container {wanted:?}; its containers are: {}", all.join(", "));
    Err(status(Code::NotFound, "NotFound", text))
}

fn unscheduled(pod: &Pod, name: &str) -> Status {
    let why = quorate_objects::pod::condition(pod, "PodScheduled").and_then(|c| c.message.clone());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let text = format!("pod {name:?} is not scheduled to a node yet{why}");
    status(Code::FailedPrecondition, "NotScheduled", text)
}

fn lost(node: &str) -> Status {
    unavailable(format!("the connection to node {node:?} was lost"))
}

#[cfg(test)]
#[path = "streams_test.rs"]
mod tests;
