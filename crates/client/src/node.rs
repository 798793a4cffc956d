//! Sessions of nodes, and streams with pods: logs, exec, attach, port-forward.

use bytes::Bytes;
use futures::StreamExt as _;
use quorate_proto::v1;
use quorate_proto::v1::nodes_client::NodesClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::call::{Repeat, call};
use crate::error::{Outcome, classify};
use crate::{Client, ClientError, MAX_ANSWER_BYTES};

/// Messages of an agent that wait to be sent; then the sender waits.
const OUTGOING: usize = 64;

fn nodes(channel: Channel) -> NodesClient<Channel> {
    NodesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// An agent's session with one master. Ends when dropped, or when all senders are.
pub struct NodeSession {
    /// To the master.
    pub sender: mpsc::Sender<v1::AgentMessage>,
    /// What the master said first.
    pub welcome: v1::Welcome,
    incoming: Streaming<v1::MasterMessage>,
}

impl NodeSession {
    /// Sends a message; waits when the master is slow.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn send(&self, message: v1::agent_message::Message) -> Result<(), ClientError> {
        let message = v1::AgentMessage { message: Some(message) };
        self.sender.send(message).await.map_err(|_| over("the session is over"))
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the session is over: `Displaced` when a newer agent of the same name has come,
    /// `Unavailable` when the master ended it.
    pub async fn next(&mut self) -> Result<v1::master_message::Message, ClientError> {
        loop {
            match self.incoming.message().await {
                Ok(Some(message)) => {
                    if let Some(message) = message.message {
                        return Ok(message);
                    }
                }
                Ok(None) => return Err(over("the master ended the session")),
                Err(status) => return Err(session_error(status)),
            }
        }
    }
}

fn over(text: &str) -> ClientError {
    ClientError::new(Code::Unavailable, "Unavailable", text)
}

fn session_error(status: tonic::Status) -> ClientError {
    match classify(status) {
        Outcome::Final(error) | Outcome::Later(error) => error,
        Outcome::NotSent(text) | Outcome::Broken(text) => over(&text),
    }
}

impl Client {
    /// Opens a node's session with the master at `endpoint` (one of [`Client::endpoints`]).
    /// There is no retry: an agent keeps one session with every master and opens each again by
    /// itself.
    ///
    /// # Errors
    /// `FailedPrecondition` when the cluster id is another; `Unavailable` when the master does
    /// not answer.
    pub async fn node_session(
        &self,
        endpoint: &str,
        register: v1::Register,
    ) -> Result<NodeSession, ClientError> {
        let index = self.pool.position(endpoint).ok_or_else(|| {
            let text = format!("{endpoint} is not one of this client's endpoints");
            ClientError::new(Code::InvalidArgument, "BadRequest", text)
        })?;
        let channel = self.pool.get(index).channel.clone();
        let open = async move {
            let (sender, receiver) = mpsc::channel(OUTGOING);
            let register = v1::agent_message::Message::Register(register);
            let first = v1::AgentMessage { message: Some(register) };
            sender.send(first).await.map_err(|_| over("the session is over"))?;
            let outgoing = Request::new(ReceiverStream::new(receiver));
            let response = nodes(channel).session(outgoing).await.map_err(session_error)?;
            let mut session = NodeSession {
                sender,
                welcome: v1::Welcome::default(),
                incoming: response.into_inner(),
            };
            match session.next().await? {
                v1::master_message::Message::Welcome(welcome) => session.welcome = welcome,
                _ => return Err(over("the master did not begin with a Welcome")),
            }
            Ok(session)
        };
        timeout(self.options.attempt_timeout, open)
            .await
            .unwrap_or_else(|_| Err(over("the master did not answer in time")))
    }

    /// What nodes and pods use, as the nodes measured it last.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn usage(&self) -> Result<Vec<v1::NodeUsage>, ClientError> {
        let request = v1::GetUsageRequest {};
        let answer =
            call(&self.pool, &self.options, "usage", Repeat::Safe, request, |c, r| async {
                nodes(c).get_usage(r).await
            });
        Ok(answer.await?.nodes)
    }

    /// Reads a container's log.
    ///
    /// # Errors
    /// `NotFound` for pod or container, `BadRequest` when a container must be chosen,
    /// `Unavailable` when the pod's node is not connected.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: v1::LogOptions,
    ) -> Result<LogStream, ClientError> {
        let request = v1::LogsRequest {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            options: Some(options),
        };
        let what = format!("logs of pod {pod:?}");
        // The deadline would end a stream that is followed: it holds for the beginning only.
        let incoming = call(&self.pool, &self.options, &what, Repeat::Safe, request, |c, r| {
            let request = Request::new(r.into_inner());
            async move { nodes(c).logs(request).await }
        });
        Ok(LogStream { incoming: incoming.await? })
    }
}

/// Messages to a container that wait to be sent; then the sender waits.
const INPUT: usize = 8;

/// Both directions of a program in a container, or of a connection to a pod's port. Ends when
/// both are dropped.
pub struct PodStream {
    /// To it.
    pub input: PodInput,
    /// From it.
    pub output: PodOutput,
}

/// The way to a container.
#[derive(Clone)]
pub struct PodInput(mpsc::Sender<v1::Input>);

impl PodInput {
    /// Sends bytes; waits when the container is slow.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn write(&self, mut data: Bytes) -> Result<(), ClientError> {
        const PIECE: usize = 64 * 1024;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.send(v1::input::Data::Stdin(piece)).await?;
        }
        Ok(())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn end(&self) -> Result<(), ClientError> {
        self.send(v1::input::Data::End(true)).await
    }

    /// The terminal has this size now.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn resize(&self, columns: u32, rows: u32) -> Result<(), ClientError> {
        self.send(v1::input::Data::Resize(v1::TerminalSize { columns, rows })).await
    }

    async fn send(&self, data: v1::input::Data) -> Result<(), ClientError> {
        let sent = self.0.send(v1::Input { data: Some(data) }).await;
        sent.map_err(|_| over("the stream is over"))
    }
}

/// What comes from a container.
pub struct PodOutput(Streaming<v1::Output>);

impl PodOutput {
    /// Waits for more; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// When it breaks off: the container, its node or the answering master has gone.
    pub async fn next(&mut self) -> Result<Option<v1::output::Data>, ClientError> {
        loop {
            match self.0.message().await.map_err(session_error)? {
                Some(v1::Output { data: Some(data) }) => return Ok(Some(data)),
                Some(v1::Output { data: None }) => {}
                None => return Ok(None),
            }
        }
    }
}

/// The kinds of streams: what they begin with, and how they carry input.
macro_rules! pod_stream {
    ($(#[$doc:meta])* $name:ident, $options:ty, $request:ident, $start:ident, $module:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// `NotFound` for pod or container, `BadRequest` when that does not run or cannot,
        /// `Unavailable` when the pod's node is not connected.
        pub async fn $name(
            &self,
            namespace: &str,
            pod: &str,
            options: $options,
        ) -> Result<PodStream, ClientError> {
            use v1::$module::Message;
            let request = v1::$start {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                options: Some(options),
            };
            let what = format!("{} with pod {pod:?}", stringify!($name));
            let open = |channel: Channel, start: Request<v1::$start>| async move {
                let (sender, receiver) = mpsc::channel(INPUT);
                let message = |message| v1::$request { message: Some(message) };
                let first = message(Message::Start(start.into_inner()));
                let rest = ReceiverStream::new(receiver).map(move |i| message(Message::Input(i)));
                let requests = futures::stream::once(std::future::ready(first)).chain(rest);
                let response = nodes(channel).$name(requests).await?;
                Ok(response.map(|output| PodStream {
                    input: PodInput(sender),
                    output: PodOutput(output),
                }))
            };
            call(&self.pool, &self.options, &what, Repeat::Unsafe, request, open).await
        }
    };
}

impl Client {
    pod_stream! {
        /// Runs a command in a container.
        exec, v1::ExecOptions, ExecRequest, ExecStart, exec_request
    }
    pod_stream! {
        /// Joins a container's main process.
        attach, v1::AttachOptions, AttachRequest, AttachStart, attach_request
    }
    pod_stream! {
        /// Connects to a TCP port of a pod: one connection.
        port_forward, v1::PortForwardOptions, PortForwardRequest, PortForwardStart,
        port_forward_request
    }
}

/// A container's log as it comes.
pub struct LogStream {
    incoming: Streaming<v1::LogChunk>,
}

impl LogStream {
    /// Waits for more; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the log breaks off: the node or the answering master has gone, or the container
    /// has.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.incoming.message().await.map_err(session_error)?;
        Ok(chunk.map(|chunk| chunk.data))
    }
}
