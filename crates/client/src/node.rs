//! Sessions of nodes, and logs.

use bytes::Bytes;
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
