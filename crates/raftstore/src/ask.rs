//! How this member answers what the code above the store asks of other members' memory.

use std::sync::Arc;

use parking_lot::RwLock;
use quorate_proto::peer as pb;
use quorate_store::Answerer;
use tonic::Status;

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
