//! Logs of containers, read through the session of the pod's node.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::kinds;
use quorate_proto::v1;
use quorate_proto::v1::master_message::Message as ToAgent;
use quorate_registry::Consistency;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::Shared;
use super::table::Session;
use crate::error::{bad_request, registry_status, status, unavailable};

/// Agents come back to a new master within this time.
const NODE_PATIENCE: Duration = Duration::from_secs(2);
/// How long the pod may take to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn open(
    shared: &Shared,
    request: v1::LogsRequest,
) -> Result<BoxStream<'static, Result<v1::LogChunk, Status>>, Status> {
    let v1::LogsRequest { namespace, pod: name, options } = request;
    let read = shared.registry.get(&kinds::POD, &namespace, &name, Consistency::Linearizable);
    let object = tokio::time::timeout(READ_TIMEOUT, read)
        .await
        .map_err(|_| status(Code::DeadlineExceeded, "Timeout", "the pod could not be read"))?
        .map_err(registry_status)?;
    let pod = object.typed::<Pod>().map_err(registry_status)?;
    let mut options = options.unwrap_or(v1::LogOptions { tail_lines: -1, ..Default::default() });
    options.container = choose(&pod, &name, &options.container)?;
    let node = quorate_objects::pod::node_name(&pod).filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| unscheduled(&pod, &name))?;
    let session = shared.table.find(node, NODE_PATIENCE).await.ok_or_else(|| {
        let text = format!("node {node:?}, where pod {name:?} runs, is not connected");
        status(Code::Unavailable, "NodeNotConnected", text)
    })?;
    let id = shared.table.fresh_id();
    let chunks = session.open_log(id);
    let reader = Reader { session, id, chunks, complete: false };
    let uid = object.uid().to_owned();
    let ask = v1::LogRequest { id, namespace, pod: name, uid, options: Some(options) };
    if reader.session.send(ToAgent::LogRequest(ask)).await.is_none() {
        return Err(lost(node));
    }
    Ok(Box::pin(futures::stream::unfold(Some(reader), step)))
}

/// The container to read: the one asked for, or the only one.
fn choose(pod: &Pod, name: &str, wanted: &str) -> Result<String, Status> {
    let Some(spec) = &pod.spec else {
        return Err(bad_request(format!("pod {name:?} has no spec")));
    };
    let main: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init = spec.init_containers.iter().flatten().map(|c| c.name.as_str());
    let all: Vec<&str> = main.iter().copied().chain(init).collect();
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

/// One log on its way.
struct Reader {
    session: Arc<Session>,
    id: u64,
    chunks: mpsc::Receiver<v1::LogData>,
    /// Has the agent sent the last of it?
    complete: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let open = self.session.close_log(self.id);
        if self.complete || !open {
            return;
        }
        let (session, id) = (Arc::clone(&self.session), self.id);
        let cancel = async move {
            session.send(ToAgent::LogCancel(v1::LogCancel { id })).await;
        };
        // Task "log cancel": ends when the message is queued or the session is over. A stream
        // may be dropped outside of a runtime only when the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(cancel);
        }
    }
}

async fn step(state: Option<Reader>) -> Option<(Result<v1::LogChunk, Status>, Option<Reader>)> {
    let mut reader = state?;
    loop {
        let Some(data) = reader.chunks.recv().await else {
            let ended = reader.session.ended.is_cancelled();
            let status = if ended {
                lost(&reader.session.node)
            } else {
                let text =
                    "the log comes faster than it is read; ask for less, for instance with --tail";
                status(Code::ResourceExhausted, "SlowReader", text)
            };
            return Some((Err(status), None));
        };
        reader.complete = data.end;
        if !data.error.is_empty() {
            return Some((Err(status(Code::Internal, "LogFailed", data.error)), None));
        }
        if data.data.is_empty() && data.end {
            return None;
        }
        if !data.data.is_empty() {
            let next = (!data.end).then_some(reader);
            return Some((Ok(v1::LogChunk { data: data.data }), next));
        }
    }
}

#[cfg(test)]
#[path = "logs_test.rs"]
mod tests;
