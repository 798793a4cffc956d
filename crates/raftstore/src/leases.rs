//! Leases on the leader: their times are in its memory, their ends go through the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::peer as pb;
use quorate_store::{
    Command, CommandKind, LeaseId, LeaseRevokeRequest, Lessor, NotLeading, Revocation, Term,
};
use tokio::time::Instant;
use tonic::Status;

use crate::forward::{Forwarded, Refusal};
use crate::reads::ReadIndex;

/// Answers for leases, if this master leads.
#[derive(Clone)]
pub(crate) struct Leases {
    pub lessor: Arc<Lessor>,
    pub reads: ReadIndex,
}

impl Leases {
    /// Renews a lease, or says what it has left.
    pub(crate) async fn handle(&self, request: pb::LeaseRequest) -> Result<pb::LeaseReply, Status> {
        let not_leading = |NotLeading| Status::unavailable("this master does not lead");
        if request.renew {
            self.lessor.renew(request.id).await.map_err(not_leading)?;
        }
        let found = self.lessor.remaining(request.id).map_err(not_leading)?;
        // Afterwards: if another master leads already, it may have counted for longer than we
        // would promise here.
        self.reads.leader_index().await.map_err(Status::unavailable)?;
        Ok(match found {
            None => pb::LeaseReply::default(),
            Some((granted_ttl_seconds, left)) => pb::LeaseReply {
                found: true,
                granted_ttl_seconds,
                left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            },
        })
    }
}

/// The task "leases": proposes the end of leases whose time is over, while this master leads.
pub(crate) async fn expire(lessor: Arc<Lessor>, forwarded: Arc<Forwarded>, timeout: Duration) {
    let revoke = |id: LeaseId, fence: Term| {
        let revoke = CommandKind::LeaseRevoke(LeaseRevokeRequest { id });
        let command = Command { fence, ..revoke.into() };
        let command: Bytes = command.encode_to_vec().into();
        let forwarded = Arc::clone(&forwarded);
        async move {
            match forwarded.propose(command, Instant::now() + timeout).await {
                // A refusal by `apply` means that the lease is gone, or that our term is.
                Ok(_) => Revocation::Done,
                Err(Refusal::NotLeader) => Revocation::NotProposed,
                Err(error) => {
                    tracing::warn!(lease = id, ?error, "a lease has not ended yet");
                    match error {
                        Refusal::Unknown(_) => Revocation::Unknown,
                        _ => Revocation::NotProposed,
                    }
                }
            }
        }
    };
    lessor.expire(revoke).await;
}
