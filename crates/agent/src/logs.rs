//! Reads of container logs that masters ask for over their sessions.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use quorate_proto::v1;
use quorate_proto::v1::agent_message::Message as ToMaster;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pods::plan::{newest, previous};
use crate::runtime::{LogQuery, Record, Role, Runtime};

/// Bytes in one message.
const CHUNK: usize = 64 * 1024;

/// Answers one request. A slow reader slows the reading, not the session.
pub async fn answer(
    runtime: Arc<dyn Runtime>,
    pod: Option<Arc<Pod>>,
    request: v1::LogRequest,
    out: mpsc::Sender<ToMaster>,
    cancel: CancellationToken,
) {
    let id = request.id;
    let result = tokio::select! {
        // Nobody reads any more.
        () = cancel.cancelled() => return,
        result = copy(runtime, pod, request, &out) => result,
    };
    let error = result.err().unwrap_or_default();
    let end = v1::LogData { id, data: Bytes::new(), end: true, error };
    let _ = out.send(ToMaster::LogData(end)).await;
}

async fn copy(
    runtime: Arc<dyn Runtime>,
    pod: Option<Arc<Pod>>,
    request: v1::LogRequest,
    out: &mpsc::Sender<ToMaster>,
) -> Result<(), String> {
    let options = request.options.unwrap_or_default();
    let uid = pod.as_ref().and_then(|p| p.metadata.uid.clone()).unwrap_or(request.uid);
    let name = container_name(pod.as_deref(), &request.pod, &options.container)?;
    let records = runtime.list(Some(&uid)).await.map_err(|e| e.to_string())?;
    let record = find(&records, &name, options.previous).ok_or_else(|| {
        let which = if options.previous { "previous terminated container" } else { "container" };
        format!("{which} \"{name}\" in pod \"{}\" is not there (yet)", request.pod)
    })?;
    let since = i64::try_from(options.since_seconds).unwrap_or(i64::MAX);
    let query = LogQuery {
        follow: options.follow && !options.previous,
        timestamps: options.timestamps,
        tail: u64::try_from(options.tail_lines).ok(),
        since: (since > 0).then(|| Timestamp::now().as_second().saturating_sub(since)),
    };
    let stream = runtime.logs(&record.id, &query).await.map_err(|e| e.to_string())?;
    let mut pieces = stream.ready_chunks(64);
    let mut left = if options.limit_bytes == 0 { usize::MAX } else { clamp(options.limit_bytes) };
    while let Some(group) = pieces.next().await {
        let mut data = BytesMut::new();
        let mut failure = None;
        for piece in group {
            match piece {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        data.truncate(left);
        left -= data.len();
        let mut data = data.freeze();
        while !data.is_empty() {
            let part = data.split_to(data.len().min(CHUNK));
            let message =
                v1::LogData { id: request.id, data: part, end: false, error: String::new() };
            if out.send(ToMaster::LogData(message)).await.is_err() {
                return Ok(());
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The container that is meant: the named one, or the pod's only one.
fn container_name(pod: Option<&Pod>, shown: &str, wanted: &str) -> Result<String, String> {
    let Some(spec) = pod.and_then(|p| p.spec.as_ref()) else {
        return Err(format!("pod \"{shown}\" is not on this node"));
    };
    let names: Vec<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|c| c.name.as_str())
        .collect();
    if names.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    if wanted.is_empty() && spec.containers.len() == 1 {
        return Ok(spec.containers[0].name.clone());
    }
    let choices = names.join(" ");
    if wanted.is_empty() {
        return Err(format!(
            "a container name must be given for pod \"{shown}\", choose one of: [{choices}]"
        ));
    }
    Err(format!("container \"{wanted}\" is not in pod \"{shown}\", choose one of: [{choices}]"))
}

fn find<'a>(records: &'a [Record], name: &str, last: bool) -> Option<&'a Record> {
    [Role::App, Role::Init].into_iter().find_map(|role| {
        if last { previous(records, role, name) } else { newest(records, role, name) }
    })
}
