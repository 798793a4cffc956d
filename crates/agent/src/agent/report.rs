//! What the leader is told of the node, a batch at a time.

use std::time::Duration;

use k8s_openapi::api::core::v1::NodeStatus;
use quorate_proto::v1;
use quorate_proto::v1::agent_message::Message as ToMaster;
use tokio::time::Instant;
use tracing::warn;

use super::Agent;
use crate::node::{Troubles, conditions};
use crate::pods::outbox::Batch;

/// A batch that is not acknowledged by then is sent again.
const ACK: Duration = Duration::from_secs(10);
/// Tries again to send what could not be sent.
const RETRY: Duration = Duration::from_millis(200);
/// A time that does not come.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A batch that the leader has not acknowledged yet.
pub(super) struct InFlight {
    sequence: u64,
    batch: Option<Batch>,
    troubles: Option<Troubles>,
    sent: Instant,
}

impl Agent {
    pub(super) fn acknowledged(&mut self, session: u64, ack: &v1::StatusAck) {
        if self.leader != Some(session) {
            return;
        }
        let Some(sent) = self.in_flight.take_if(|sent| sent.sequence == ack.sequence) else {
            return;
        };
        if ack.refused || ack.retry_node_status || !ack.retry_uids.is_empty() {
            self.hold = Some(Instant::now() + RETRY);
        }
        if ack.refused {
            return;
        }
        if let Some(batch) = &sent.batch {
            self.outbox.acknowledge(batch, &ack.retry_uids);
        }
        if sent.troubles.is_some() && !ack.retry_node_status {
            self.told_troubles = sent.troubles;
        }
    }

    /// When `send` has to be tried again although nothing happens.
    pub(super) fn due(&self) -> Instant {
        let acknowledged = self.in_flight.as_ref().map(|sent| sent.sent + ACK);
        let due = self.leader.and_then(|_| acknowledged.or(self.hold));
        due.unwrap_or_else(|| Instant::now() + NEVER)
    }

    /// Sends what the leader has not heard, unless a batch is under way.
    pub(super) fn send(&mut self) {
        let Some(leader) = self.leader.and_then(|session| self.up.get(&session)) else { return };
        if self.in_flight.take_if(|sent| sent.sent.elapsed() >= ACK).is_some() {
            warn!("the leader has not acknowledged a batch of statuses; sending it again");
        }
        if self.in_flight.is_some() {
            return;
        }
        if self.hold.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.hold = None;
        let batch = self.outbox.batch();
        let troubles =
            (self.told_troubles.as_ref() != Some(&self.troubles)).then(|| self.troubles.clone());
        if batch.is_none() && troubles.is_none() {
            return;
        }
        let node_status = troubles.as_ref().map(|troubles| {
            self.told_conditions =
                conditions(troubles, &self.told_conditions, quorate_objects::time::timestamp());
            let status =
                NodeStatus { conditions: Some(self.told_conditions.clone()), ..Default::default() };
            serde_json::to_vec(&status).unwrap_or_default()
        });
        self.sequence += 1;
        let message = ToMaster::Status(v1::StatusBatch {
            sequence: self.sequence,
            pods: batch.as_ref().map(|b| b.pods.clone()).unwrap_or_default(),
            node_status_json: node_status.unwrap_or_default().into(),
            removed_volumes: batch.as_ref().map(|b| b.removed.clone()).unwrap_or_default(),
            events: batch.as_ref().map(|b| b.events.clone()).unwrap_or_default(),
        });
        if leader.control.try_send(message).is_ok() {
            let sequence = self.sequence;
            self.in_flight = Some(InFlight { sequence, batch, troubles, sent: Instant::now() });
        } else {
            // A full queue.
            self.hold = Some(Instant::now() + RETRY);
        }
    }
}
