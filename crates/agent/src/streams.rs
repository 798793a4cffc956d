//! Streams with pods that masters ask for over their sessions: logs, exec, attach and
//! port-forward. Each is a call of its own on the session's connection, so that its flow
//! control is HTTP/2's and a slow reader slows nothing but itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use quorate_proto::v1;
use quorate_proto::v1::agent_frame::Frame;
use quorate_proto::v1::input::Data as In;
use quorate_proto::v1::nodes_client::NodesClient;
use quorate_proto::v1::output::Data as Out;
use quorate_proto::v1::stream_request::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::debug;

use crate::pods::plan::{newest, previous};
use crate::runtime::{
    Attached, ExecSpec, LogQuery, Output, Pieces, Process, Record, Role, RunState, Runtime,
    RuntimeError,
};

/// Bytes in one message.
const CHUNK: usize = 64 * 1024;
/// Messages that wait to be sent; then whoever writes waits.
const OUTGOING: usize = 4;
/// The master takes the stream within this time.
const OPEN: Duration = Duration::from_secs(10);
/// An engine tells the exit code of a program within this time after its output has ended.
const EXIT: Duration = Duration::from_secs(10);
const EXIT_POLL: Duration = Duration::from_millis(20);

/// Why a stream failed.
struct Failure {
    reason: &'static str,
    message: String,
}

impl Failure {
    fn not_found(message: String) -> Self {
        Self { reason: "NotFound", message }
    }

    fn bad_request(message: String) -> Self {
        Self { reason: "BadRequest", message }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let reason = if matches!(error, RuntimeError::NotFound(_)) { "NotFound" } else { "Failed" };
        Self { reason, message: error.to_string() }
    }
}

/// Where output goes. Its end means that nobody reads any more.
#[derive(Clone)]
struct Sink(mpsc::Sender<v1::AgentFrame>);

impl Sink {
    async fn frame(&self, frame: Frame) -> bool {
        self.0.send(v1::AgentFrame { frame: Some(frame) }).await.is_ok()
    }

    async fn send(&self, data: Out) -> bool {
        self.frame(Frame::Output(v1::Output { data: Some(data) })).await
    }

    /// Sends bytes in pieces of the size allowed.
    async fn bytes(&self, from: Output, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(CHUNK));
            let part = match from {
                Output::Stdout => Out::Stdout(part),
                Output::Stderr => Out::Stderr(part),
            };
            if !self.send(part).await {
                return false;
            }
        }
        true
    }
}

/// Opens the stream that the master asked for, and serves it to its end.
pub async fn serve(
    runtime: Arc<dyn Runtime>,
    node_name: String,
    channel: Channel,
    pod: Option<Arc<Pod>>,
    request: v1::StreamRequest,
) {
    let (sender, receiver) = mpsc::channel(OUTGOING);
    let sink = Sink(sender);
    sink.frame(Frame::Open(v1::StreamOpen { node_name, id: request.id })).await;
    let mut client = NodesClient::new(channel);
    let opened = tokio::time::timeout(OPEN, client.stream(ReceiverStream::new(receiver))).await;
    let mut input = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return debug!(error = status.message(), "no stream"),
        Err(_) => return debug!("the master did not take a stream in time"),
    };
    let result = converse(&runtime, pod.as_deref(), request, &mut input, &sink).await;
    if let Err(Failure { reason, message }) = result {
        let failure = v1::StreamFailure { reason: reason.to_owned(), message };
        sink.frame(Frame::Failure(failure)).await;
    }
    // Dropping the master's side now would reset the call, and what was sent last be lost.
    drop(sink);
    until_gone(&mut input).await;
}

async fn converse(
    runtime: &Arc<dyn Runtime>,
    pod: Option<&Pod>,
    request: v1::StreamRequest,
    input: &mut Streaming<v1::Input>,
    sink: &Sink,
) -> Result<(), Failure> {
    let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(&request.uid));
    let pod =
        pod.ok_or_else(|| gone(format!("pod \"{}\" is not on its node (yet)", request.pod)))?;
    let records = runtime.list(Some(&request.uid)).await?;
    match request.kind {
        Some(Kind::Logs(options)) => tokio::select! {
            result = logs(runtime, pod, &records, &options, sink) => result,
            () = until_gone(input) => Ok(()),
        },
        Some(Kind::Exec(options)) => {
            let record = running(pod, &records, &options.container)?;
            exec(runtime, record, options, input, sink).await
        }
        Some(Kind::Attach(options)) => {
            let record = running(pod, &records, &options.container)?;
            let attached = runtime.attach(&record.id, options.stdin).await?;
            let wanted = Wanted { stdout: options.stdout, stderr: options.stderr };
            tokio::select! {
                result = pour(attached.output, wanted, sink) => result,
                () = feed(runtime, &attached.process, attached.input, input) => Ok(()),
            }
        }
        Some(Kind::PortForward(options)) => {
            port_forward(runtime, &records, options.port, input, sink).await
        }
        None => Err(Failure::bad_request("this agent is too old for this kind of stream".into())),
    }
}

fn gone(message: String) -> Failure {
    Failure::not_found(message)
}

/// Waits until nobody reads any more.
async fn until_gone(input: &mut Streaming<v1::Input>) {
    while let Ok(Some(_)) = input.message().await {}
}

async fn exec(
    runtime: &Arc<dyn Runtime>,
    record: &Record,
    options: v1::ExecOptions,
    input: &mut Streaming<v1::Input>,
    sink: &Sink,
) -> Result<(), Failure> {
    let spec = ExecSpec {
        command: options.command,
        stdin: options.stdin,
        stdout: options.stdout || options.tty,
        stderr: options.stderr && !options.tty,
        tty: options.tty,
    };
    let Attached { process, input: writer, output } = runtime.exec(&record.id, &spec).await?;
    let Process::Exec(exec) = &process else { return Ok(()) };
    let wanted = Wanted { stdout: spec.stdout, stderr: spec.stderr };
    tokio::select! {
        poured = pour(output, wanted, sink) => poured?,
        () = feed(runtime, &process, writer, input) => {
            // Whoever ran it has gone, and nobody would end it.
            if let Err(error) = runtime.exec_kill(exec).await {
                debug!(%error, "cannot end a program that nobody waits for");
            }
            return Ok(());
        }
    }
    let code = tokio::time::timeout(EXIT, async {
        loop {
            if let Some(code) = runtime.exec_result(exec).await? {
                return Ok::<_, Failure>(code);
            }
            tokio::time::sleep(EXIT_POLL).await;
        }
    });
    let code = code.await.map_err(|_| Failure {
        reason: "Failed",
        message: "the program closed its output and goes on running".into(),
    })??;
    sink.send(Out::Exit(v1::Exit { code })).await;
    Ok(())
}

#[derive(Clone, Copy)]
struct Wanted {
    stdout: bool,
    stderr: bool,
}

/// Passes on what a process writes, until its end or until nobody reads.
async fn pour(mut output: Pieces, wanted: Wanted, sink: &Sink) -> Result<(), Failure> {
    while let Some(piece) = output.next().await {
        let (from, data) = piece?;
        let wanted = match from {
            Output::Stdout => wanted.stdout,
            Output::Stderr => wanted.stderr,
        };
        if wanted && !sink.bytes(from, data).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Passes on what a caller writes. Ends only when the caller has gone.
async fn feed(
    runtime: &Arc<dyn Runtime>,
    process: &Process,
    writer: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
    input: &mut Streaming<v1::Input>,
) {
    let mut writer = Some(writer);
    while let Ok(Some(message)) = input.message().await {
        match message.data {
            Some(In::Stdin(data)) => {
                if let Some(open) = &mut writer {
                    // The process may have closed its standard input, or ended.
                    let written = async {
                        open.write_all(&data).await?;
                        open.flush().await
                    };
                    if written.await.is_err() {
                        writer = None;
                    }
                }
            }
            Some(In::End(_)) => {
                if let Some(mut open) = writer.take() {
                    let _ = open.shutdown().await;
                }
            }
            Some(In::Resize(size)) => {
                let number = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
                let (columns, rows) = (number(size.columns), number(size.rows));
                if let Err(error) = runtime.resize(process, columns, rows).await {
                    debug!(%error, "cannot resize a terminal");
                }
            }
            None => {}
        }
    }
}

async fn port_forward(
    runtime: &Arc<dyn Runtime>,
    records: &[Record],
    port: u32,
    input: &mut Streaming<v1::Input>,
    sink: &Sink,
) -> Result<(), Failure> {
    let sandbox = records
        .iter()
        .filter(|r| r.role == Role::Sandbox && r.state == RunState::Running)
        .max_by_key(|r| r.attempt)
        .ok_or_else(|| gone("the pod's network is not there (yet)".into()))?;
    let port = u16::try_from(port).unwrap_or_default();
    let (mut reader, mut writer) = tokio::io::split(runtime.connect(&sandbox.id, port).await?);
    let upwards = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.reserve(CHUNK);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(_) if !sink.bytes(Output::Stdout, buffer.split().freeze()).await => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(e) => return Err(Failure { reason: "Failed", message: e.to_string() }),
            }
        }
    };
    let downwards = async {
        while let Ok(Some(message)) = input.message().await {
            match message.data {
                // A pod that no longer reads may still have something to say.
                Some(In::Stdin(data)) => drop(writer.write_all(&data).await),
                Some(In::End(_)) => drop(writer.shutdown().await),
                _ => {}
            }
        }
    };
    tokio::select! {
        result = upwards => result,
        () = downwards => Ok(()),
    }
}

async fn logs(
    runtime: &Arc<dyn Runtime>,
    pod: &Pod,
    records: &[Record],
    options: &v1::LogOptions,
    sink: &Sink,
) -> Result<(), Failure> {
    let name = known(pod, &options.container)?;
    let record = find(records, name, options.previous).ok_or_else(|| {
        let which = if options.previous { "previous terminated container" } else { "container" };
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        Failure::bad_request(format!("{which} \"{name}\" in pod \"{pod}\" is not there (yet)"))
    })?;
    let query = log_query(options)?;
    let mut pieces = runtime.logs(&record.id, &query).await?.ready_chunks(64);
    let mut left = if options.limit_bytes == 0 { usize::MAX } else { clamp(options.limit_bytes) };
    while let Some(group) = pieces.next().await {
        let mut data = BytesMut::new();
        let mut failure = None;
        for piece in group {
            match piece {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(error) => failure = Some(error),
            }
        }
        data.truncate(left);
        left -= data.len();
        if !sink.bytes(Output::Stdout, data.freeze()).await {
            return Ok(());
        }
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

fn log_query(options: &v1::LogOptions) -> Result<LogQuery, Failure> {
    let ago = i64::try_from(options.since_seconds).unwrap_or(i64::MAX);
    let ago = (ago > 0).then(|| quorate_objects::time::timestamp().as_second().saturating_sub(ago));
    let time = if options.since_time.is_empty() {
        None
    } else {
        let time: Timestamp = options.since_time.parse().map_err(|_| {
            Failure::bad_request(format!("sinceTime {:?} is no RFC 3339 time", options.since_time))
        })?;
        Some(time.as_second())
    };
    let without = match options.stream.as_str() {
        "" | "All" => None,
        "Stdout" => Some(Output::Stderr),
        "Stderr" => Some(Output::Stdout),
        other => {
            let message = format!("stream {other:?}: only All, Stdout and Stderr are known");
            return Err(Failure::bad_request(message));
        }
    };
    Ok(LogQuery {
        follow: options.follow && !options.previous,
        timestamps: options.timestamps,
        tail: u64::try_from(options.tail_lines).ok(),
        since: time.or(ago),
        without,
    })
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A container of the pod by its name, or the pod's only one.
fn known<'a>(pod: &'a Pod, name: &str) -> Result<&'a str, Failure> {
    let Some(spec) = &pod.spec else { return Err(gone("the pod has no spec".into())) };
    let main = spec.containers.iter().map(|c| c.name.as_str());
    let init = spec.init_containers.iter().flatten().map(|c| c.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
    let all: Vec<&str> = main.chain(init).chain(ephemeral).collect();
    match all.iter().find(|known| **known == name) {
        Some(found) => return Ok(found),
        None if name.is_empty() && spec.containers.len() == 1 => return Ok(all[0]),
        None => {}
    }
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    let choices = all.join(" ");
    Err(if name.is_empty() {
        Failure::bad_request(format!(
            "a container name must be given for pod \"{pod}\", choose one of: [{choices}]"
        ))
    } else {
        gone(format!("container \"{name}\" is not in pod \"{pod}\", choose one of: [{choices}]"))
    })
}

/// The running container of this name.
fn running<'a>(pod: &Pod, records: &'a [Record], name: &str) -> Result<&'a Record, Failure> {
    let name = known(pod, name)?;
    let record = find(records, name, false);
    record
        .filter(|record| record.state == RunState::Running)
        .ok_or_else(|| Failure::bad_request(format!("container \"{name}\" does not run")))
}

fn find<'a>(records: &'a [Record], name: &str, last: bool) -> Option<&'a Record> {
    [Role::App, Role::Init, Role::Ephemeral].into_iter().find_map(|role| {
        if last { previous(records, role, name) } else { newest(records, role, name) }
    })
}

#[cfg(test)]
#[path = "streams_test.rs"]
mod tests;
