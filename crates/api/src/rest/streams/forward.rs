//! port-forward: TCP connections to ports of a pod, over SPDY's streams or a WebSocket's
//! channels.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use quorate_proto::v1;
use quorate_proto::v1::input::Data as Input;
use quorate_proto::v1::output::Data as Output;
use quorate_proto::v1::stream_request::Kind as StreamKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

use super::remote::{MAX_INPUT, content, to_pod_input};
use super::session::{Session, SpdyStream};
use crate::nodes::Shared;
use crate::nodes::streams::{self, PodStream};

/// Messages to a WebSocket that wait; then whoever sends waits.
const MESSAGES: usize = 32;

/// The pod whose ports are forwarded.
pub(super) struct Target {
    pub nodes: Shared,
    pub namespace: String,
    pub pod: String,
}

impl Target {
    async fn open(&self, port: u16) -> Result<PodStream, Status> {
        let options = v1::PortForwardOptions { port: u32::from(port) };
        let kind = StreamKind::PortForward(options);
        streams::open(&self.nodes, &self.namespace, &self.pod, kind).await
    }
}

/// Each connection is a pair of streams with one request id: the error's and the data's.
pub(super) async fn over_spdy(mut session: Session, target: Arc<Target>) {
    let mut halves: HashMap<String, SpdyStream> = HashMap::new();
    // Ends all connections when the session ends.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let Some(stream) = stream else { return };
        let id = stream.header("requestid").to_owned();
        let Some(other) = halves.remove(&id) else {
            halves.insert(id, stream);
            continue;
        };
        let is_error = |stream: &SpdyStream| stream.header("streamtype") == "error";
        let (error, data) = if is_error(&other) { (other, stream) } else { (stream, other) };
        if !is_error(&error) || is_error(&data) {
            error.writer.reset().await;
            data.writer.reset().await;
            continue;
        }
        // Task "forwarded port": ends with its connection or the session.
        connections.spawn(connect(Arc::clone(&target), error, data));
    }
}

async fn connect(target: Arc<Target>, error: SpdyStream, data: SpdyStream) {
    let result = match data.header("port").parse() {
        Ok(port) => pass(&target, port, data).await,
        Err(_) => {
            let text = format!("{:?} is no port", data.header("port"));
            data.writer.reset().await;
            Err(text)
        }
    };
    if let Err(text) = result {
        error.writer.send(text.as_bytes()).await;
    }
    error.writer.finish().await;
}

async fn pass(target: &Target, port: u16, stream: SpdyStream) -> Result<(), String> {
    let SpdyStream { mut data, writer, .. } = stream;
    let PodStream { input, mut output } = match target.open(port).await {
        Ok(pod) => pod,
        Err(status) => {
            writer.reset().await;
            return Err(status.message().to_owned());
        }
    };
    let send = async {
        while let Some(bytes) = data.recv().await {
            for piece in bytes.chunks(MAX_INPUT) {
                if to_pod_input(&input, Input::Stdin(bytes.slice_ref(piece))).await.is_err() {
                    return;
                }
            }
        }
        let _ = to_pod_input(&input, Input::End(true)).await;
        // Open until the other direction has ended, too.
        std::future::pending::<()>().await;
    };
    let receive = async {
        loop {
            match output.next().await {
                Some(Ok(Output::Stdout(bytes) | Output::Stderr(bytes))) => {
                    writer.send(&bytes).await;
                }
                Some(Ok(Output::Exit(_))) | None => return Ok(()),
                Some(Err(status)) => return Err(status.message().to_owned()),
            }
        }
    };
    let result = tokio::select! {
        () = send => Ok(()),
        result = receive => result,
    };
    writer.finish().await;
    result
}

/// Ports in the order of the query: port n has the channels 2n (data) and 2n+1 (error); the first
/// message on each says which port it is.
pub(super) async fn over_websocket(socket: WebSocket, target: Arc<Target>, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (messages, mut queue) = mpsc::channel::<Bytes>(MESSAGES);
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (sender, receiver) = mpsc::channel::<Bytes>(MESSAGES);
        inputs.push(sender);
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX - 1);
        for channel in [channel, channel + 1] {
            let _ = messages.try_send(message(channel, &port.to_le_bytes()));
        }
        let (target, messages) = (Arc::clone(&target), messages.clone());
        // Task "forwarded port": ends with its connection or the socket.
        connections.spawn(async move {
            if let Err(text) = pass_channel(&target, port, channel, receiver, &messages).await {
                let _ = messages.send(message(channel + 1, text.as_bytes())).await;
            }
        });
    }
    drop(messages);
    let write = async {
        // Ends when all connections have.
        while let Some(bytes) = queue.recv().await {
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let read = async {
        while let Some(Ok(one)) = source.next().await {
            let Some(bytes) = content(one) else { continue };
            let Some(channel) = bytes.first() else { continue };
            if channel % 2 == 0
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                let _ = input.send(bytes.slice(1..)).await;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}

fn message(channel: u8, data: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.put_u8(channel);
    message.extend_from_slice(data);
    message.freeze()
}

async fn pass_channel(
    target: &Target,
    port: u16,
    channel: u8,
    mut data: mpsc::Receiver<Bytes>,
    messages: &mpsc::Sender<Bytes>,
) -> Result<(), String> {
    let text = |status: Status| status.message().to_owned();
    let PodStream { input, mut output } = target.open(port).await.map_err(text)?;
    loop {
        tokio::select! {
            next = output.next() => match next {
                Some(Ok(Output::Stdout(bytes) | Output::Stderr(bytes))) => {
                    if messages.send(message(channel, &bytes)).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Ok(Output::Exit(_))) | None => return Ok(()),
                Some(Err(status)) => return Err(text(status)),
            },
            Some(bytes) = data.recv() => {
                for piece in bytes.chunks(MAX_INPUT) {
                    let piece = Input::Stdin(bytes.slice_ref(piece));
                    if to_pod_input(&input, piece).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}
