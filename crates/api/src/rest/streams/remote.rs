//! exec and attach: a process' standard streams over a WebSocket's channels or SPDY's streams.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::SplitSink;
use futures::{SinkExt as _, StreamExt as _};
use quorate_proto::v1;
use quorate_proto::v1::input::Data as Input;
use quorate_proto::v1::output::Data as Output;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::session::{Session, SpdyStream, Writer};
use crate::nodes::streams::PodStream;

/// Channels of a WebSocket.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Of version 5: the channel in the second byte is closed.
const CLOSE: u8 = 255;
/// Bytes that go to an agent in one message.
pub(super) const MAX_INPUT: usize = 64 * 1024;
/// A client opens all its SPDY streams within this time.
const STREAMS: Duration = Duration::from_secs(30);
/// A client takes a closing handshake within this time.
const CLOSING: Duration = Duration::from_secs(5);

/// Which streams the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Where the output goes.
enum Client {
    WebSocket(SplitSink<WebSocket, Message>),
    Spdy { stdout: Option<Writer>, stderr: Option<Writer>, status: Writer },
}

/// The client has gone.
struct Gone;

impl Client {
    async fn send(&mut self, channel: u8, data: &[u8]) -> Result<(), Gone> {
        match self {
            Self::WebSocket(socket) => {
                let mut message = BytesMut::with_capacity(1 + data.len());
                message.put_u8(channel);
                message.extend_from_slice(data);
                socket.send(Message::Binary(message.freeze())).await.map_err(|_| Gone)
            }
            Self::Spdy { stdout, stderr, status } => {
                let writer = match channel {
                    STDOUT => stdout.as_ref(),
                    STDERR => stderr.as_ref(),
                    _ => Some(&*status),
                };
                if let Some(writer) = writer {
                    writer.send(data).await;
                }
                Ok(())
            }
        }
    }

    async fn close(self) {
        match self {
            Self::WebSocket(mut socket) => {
                let _ = tokio::time::timeout(CLOSING, async {
                    // Clients take any other code, and none, for a failure.
                    let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
                    let _ = socket.send(Message::Close(Some(frame))).await;
                    let _ = socket.close().await;
                })
                .await;
            }
            Self::Spdy { stdout, stderr, status } => {
                for writer in [stdout, stderr, Some(status)].into_iter().flatten() {
                    writer.finish().await;
                }
            }
        }
    }
}

/// Serves a process over a WebSocket.
pub(super) async fn over_websocket(socket: WebSocket, pod: PodStream, wanted: Wanted) {
    let (sink, mut source) = socket.split();
    let input = pod.input.clone();
    // Task "exec input": ends with the client's side, or with the output below.
    let reader = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let Some(data) = content(message) else { continue };
            if from_channel(&data, &input).await.is_err() {
                return;
            }
        }
    }));
    let mut client = Client::WebSocket(sink);
    // Tells the client that the connection stands, as kubelets do.
    let first = if wanted.stdout { STDOUT } else { STATUS };
    if wanted.stdout && client.send(first, &[]).await.is_err() {
        return;
    }
    serve(client, pod, wanted, reader).await;
}

/// What a message carries. The Python client sends text as text.
pub(super) fn content(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(data) => Some(data),
        Message::Text(text) => Some(text.into()),
        _ => None,
    }
}

/// Takes one message of a client.
async fn from_channel(message: &Bytes, input: &mpsc::Sender<v1::Input>) -> Result<(), Gone> {
    let Some((channel, data)) = message.split_first() else { return Ok(()) };
    match *channel {
        STDIN => {
            for piece in data.chunks(MAX_INPUT) {
                to_pod(input, Input::Stdin(message.slice_ref(piece))).await?;
            }
            Ok(())
        }
        RESIZE => match size(data) {
            Some(size) => to_pod(input, Input::Resize(size)).await,
            None => Ok(()),
        },
        CLOSE if data.first() == Some(&STDIN) => to_pod(input, Input::End(true)).await,
        _ => Ok(()),
    }
}

pub(super) async fn to_pod_input(input: &mpsc::Sender<v1::Input>, data: Input) -> Result<(), ()> {
    input.send(v1::Input { data: Some(data) }).await.map_err(|_| ())
}

async fn to_pod(input: &mpsc::Sender<v1::Input>, data: Input) -> Result<(), Gone> {
    to_pod_input(input, data).await.map_err(|()| Gone)
}

/// `{"Width": 80, "Height": 24}`
fn size(data: &[u8]) -> Option<v1::TerminalSize> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let number = |name: &str| u32::try_from(value[name].as_u64()?).ok();
    Some(v1::TerminalSize { columns: number("Width")?, rows: number("Height")? })
}

/// Serves a process over a SPDY session.
pub(super) async fn over_spdy(mut session: Session, pod: PodStream, wanted: Wanted) {
    let Ok(Some(streams)) = tokio::time::timeout(STREAMS, open(&mut session, wanted)).await else {
        tracing::debug!("the client did not open its streams");
        return;
    };
    let Streams { stdin, stdout, stderr, status, resize } = streams;
    let input = pod.input.clone();
    // Task "exec input": ends with the client's side, or with the output below.
    let reader = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::join!(pump_stdin(stdin, &input), pump_sizes(resize, &input));
    }));
    let writer = |stream: Option<SpdyStream>| stream.map(|stream| stream.writer);
    let client = Client::Spdy {
        stdout: writer(stdout),
        stderr: writer(stderr),
        status: status.writer.clone(),
    };
    drop(status);
    serve(client, pod, wanted, reader).await;
    session.finish().await;
}

struct Streams {
    stdin: Option<SpdyStream>,
    stdout: Option<SpdyStream>,
    stderr: Option<SpdyStream>,
    status: SpdyStream,
    resize: Option<SpdyStream>,
}

async fn open(session: &mut Session, wanted: Wanted) -> Option<Streams> {
    let (mut stdin, mut stdout, mut stderr, mut status, mut resize) =
        (None, None, None, None, None);
    let complete = |stdin: bool, stdout: bool, stderr: bool, status: bool, resize: bool| {
        status
            && (stdin || !wanted.stdin)
            && (stdout || !wanted.stdout)
            && (stderr || !wanted.stderr || wanted.tty)
            && (resize || !wanted.tty)
    };
    while !complete(
        stdin.is_some(),
        stdout.is_some(),
        stderr.is_some(),
        status.is_some(),
        resize.is_some(),
    ) {
        let stream = session.accept().await?;
        match stream.header("streamtype") {
            "stdin" => stdin = Some(stream),
            "stdout" => stdout = Some(stream),
            "stderr" => stderr = Some(stream),
            "error" => status = Some(stream),
            "resize" => resize = Some(stream),
            _ => stream.writer.reset().await,
        }
    }
    Some(Streams { stdin, stdout, stderr, status: status?, resize })
}

async fn pump_stdin(stdin: Option<SpdyStream>, input: &mpsc::Sender<v1::Input>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(data) = stdin.data.recv().await {
        for piece in data.chunks(MAX_INPUT) {
            if to_pod(input, Input::Stdin(data.slice_ref(piece))).await.is_err() {
                return;
            }
        }
    }
    let _ = to_pod(input, Input::End(true)).await;
}

async fn pump_sizes(resize: Option<SpdyStream>, input: &mpsc::Sender<v1::Input>) {
    let Some(mut resize) = resize else { return };
    while let Some(data) = resize.data.recv().await {
        if let Some(size) = size(&data)
            && to_pod(input, Input::Resize(size)).await.is_err()
        {
            return;
        }
    }
}

/// Passes the output on until the process ends, the client goes, or the node is lost.
async fn serve(mut client: Client, pod: PodStream, wanted: Wanted, reader: AbortOnDropHandle<()>) {
    let PodStream { input, mut output } = pod;
    let mut status = succeeded();
    // A client that closes its side has gone, except that one without input has nothing to say.
    let mut reader = std::pin::pin!(reader);
    let mut listening = true;
    loop {
        let next = tokio::select! {
            next = output.next() => next,
            _ = &mut reader, if listening => {
                listening = false;
                if matches!(client, Client::WebSocket(_)) {
                    return;
                }
                continue;
            }
        };
        let sent = match next {
            Some(Ok(Output::Stdout(data))) if wanted.stdout => client.send(STDOUT, &data).await,
            Some(Ok(Output::Stderr(data))) if wanted.stderr => client.send(STDERR, &data).await,
            Some(Ok(Output::Stdout(_) | Output::Stderr(_))) => Ok(()),
            Some(Ok(Output::Exit(exit))) => {
                status = exited(exit.code);
                Ok(())
            }
            Some(Err(error)) => {
                status = failed(error.message());
                break;
            }
            None => break,
        };
        if sent.is_err() {
            return;
        }
    }
    drop(input);
    if client.send(STATUS, status.to_string().as_bytes()).await.is_ok() {
        client.close().await;
    }
}

fn succeeded() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn exited(code: i32) -> Value {
    if code == 0 {
        return succeeded();
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failed(text: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {text}"),
    })
}

#[cfg(test)]
#[path = "remote_test.rs"]
mod tests;
