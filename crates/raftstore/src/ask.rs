//! What the code above the store asks of other members' memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::RwLock;
use quorate_proto::peer as pb;
use quorate_store::{Answerer, MemberId};
use tonic::Status;

use crate::store::RaftStore;

/// How this member answers; nothing until somebody says how.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<RwLock<Option<Answerer>>>);

impl Answers {
    pub(crate) fn set(&self, answerer: Answerer) {
        *self.0.write() = Some(answerer);
    }

    pub(crate) fn handle(&self, request: pb::AskRequest) -> Result<pb::AskReply, Status> {
        let answerer = self.0.read().clone();
        let nobody = || Status::unavailable("this master does not answer questions yet");
        let answer = answerer.ok_or_else(nobody)?(request.question);
        Ok(pb::AskReply { answer })
    }
}

/// Asks all other members at once; who does not answer within `patience` has no answer.
pub(crate) async fn all(
    store: &RaftStore,
    question: Bytes,
    patience: Duration,
) -> Vec<(MemberId, Bytes)> {
    let asked = store.others().into_iter().map(|(id, info)| {
        let question = question.clone();
        async move {
            let mut client = store.peers.get(id, &info).ok()?.urgent();
            let answer = client.ask(pb::AskRequest { question });
            match tokio::time::timeout(patience, answer).await {
                Ok(Ok(reply)) => Some((id, reply.into_inner().answer)),
                Ok(Err(status)) => {
                    tracing::debug!(member = id, %status, "a question has no answer");
                    None
                }
                Err(_) => None,
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}
