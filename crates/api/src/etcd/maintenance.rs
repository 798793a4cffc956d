//! `etcdserverpb.Maintenance`.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcd::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcd::etcdserverpb::maintenance_server::Maintenance;
use quorate_store::{Alarm, AlarmKind, Role, Snapshot};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Etcd;
use super::convert::{signed, unsigned};
use super::error::{self, store_status};

/// The version of etcd whose API this is. Clients decide by it what they may ask for.
const ETCD_VERSION: &str = "3.5.21";
/// Chunks of a snapshot that wait for a client that reads slowly.
const QUEUE: usize = 2;

type Chunk = Result<pb::SnapshotResponse, Status>;
type Chunks = Pin<Box<dyn Stream<Item = Chunk> + Send>>;

#[tonic::async_trait]
impl Maintenance for Etcd {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        self.guard(&request)?.manage()?;
        let (metadata, _, r) = request.into_parts();
        let alarms = self.within(&metadata, self.change_alarms(r)).await?;
        let alarms = alarms.into_iter().map(alarm_member).collect();
        Ok(Response::new(pb::AlarmResponse { header: self.header_now(), alarms }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.guard(&request)?;
        let status = self.store.status();
        let leader = status.leadership.leader.as_ref().map_or(0, |leader| leader.id);
        let mut errors: Vec<String> = status.alarms.iter().map(alarm_text).collect();
        if leader == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        let version = format!("{ETCD_VERSION}+quorate.{}", self.options.version);
        Ok(Response::new(pb::StatusResponse {
            header: self.header(status.revision),
            storage_version: ETCD_VERSION.to_owned(),
            version,
            db_size: signed(status.state_bytes),
            leader,
            raft_index: status.last_index,
            raft_term: status.leadership.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: signed(status.state_bytes_in_use),
            is_learner: status.role == Role::Learner,
            db_size_quota: signed(status.budget_bytes),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.guard(&request)?.operate()?;
        // No deadline: it takes as long as the disk needs, and the client may hang up.
        self.store.defragment().await.map_err(store_status)?;
        Ok(Response::new(pb::DefragmentResponse { header: self.header_now() }))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        self.guard(&request)?.operate()?;
        let hash = self.store.hash_kv(0).await.map_err(store_status)?;
        Ok(Response::new(pb::HashResponse { header: self.header(hash.revision), hash: hash.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.guard(&request)?.operate()?;
        let revision = unsigned(request.into_inner().revision);
        let hash = self.store.hash_kv(revision).await.map_err(store_status)?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.header_now(),
            hash: hash.hash,
            compact_revision: signed(hash.compact_revision),
            hash_revision: signed(hash.revision),
        }))
    }

    type SnapshotStream = Chunks;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Chunks>, Status> {
        self.guard(&request)?.operate()?;
        let snapshot = self.store.snapshot().await.map_err(store_status)?;
        let (out, receiver) = mpsc::channel(QUEUE);
        let etcd = self.clone();
        // Task "etcd snapshot": ends with the stream; its failure is the stream's.
        tokio::spawn(async move {
            let cancel = etcd.cancel.clone();
            tokio::select! {
                () = etcd.send_snapshot(snapshot, &out) => {}
                () = out.closed() => {}
                () = cancel.cancelled() => {
                    // A full queue belongs to somebody who does not listen.
                    let _ = out.try_send(Err(error::stopped()));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.guard(&request)?.operate()?;
        let (metadata, _, r) = request.into_parts();
        let status = self.store.status();
        if status.role != Role::Leader {
            return Err(error::not_leader());
        }
        let voter = |id| status.members.iter().any(|m| m.member.id == id && !m.member.learner);
        if !voter(r.target_id) {
            return Err(error::bad_leader_transferee());
        }
        let transfer = self.store.transfer_leadership(Some(r.target_id));
        self.within(&metadata, async { transfer.await.map_err(store_status) }).await?;
        Ok(Response::new(pb::MoveLeaderResponse { header: self.header_now() }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.guard(&request)?.manage()?;
        match request.into_inner().action() {
            DowngradeAction::Validate | DowngradeAction::Enable => {
                Err(error::invalid_downgrade_target())
            }
            DowngradeAction::Cancel => Err(error::no_downgrade()),
        }
    }
}

impl Etcd {
    /// The alarms that the request is about, after it has been carried out.
    async fn change_alarms(&self, r: pb::AlarmRequest) -> Result<Vec<Alarm>, Status> {
        let active = self.store.alarms().borrow().clone();
        let (member, kind) = (r.member_id, r.alarm);
        let meant = |alarm: &Alarm| {
            (member == 0 || alarm.member == member)
                && (kind == pb::AlarmType::None as i32 || alarm.kind == kind)
        };
        let action = AlarmAction::try_from(r.action);
        let known = AlarmKind::try_from(kind).is_ok() || kind == pb::AlarmType::None as i32;
        let (Ok(action), true) = (action, known) else {
            return Err(Status::invalid_argument("etcdserver: unknown alarm or action"));
        };
        let changed = match action {
            AlarmAction::Get => return Ok(active.into_iter().filter(meant).collect()),
            AlarmAction::Deactivate => active.into_iter().filter(meant).collect(),
            AlarmAction::Activate if kind == pb::AlarmType::None as i32 => Vec::new(),
            AlarmAction::Activate => {
                vec![Alarm { member: if member == 0 { self.member_id } else { member }, kind }]
            }
        };
        for alarm in &changed {
            let on = action == AlarmAction::Activate;
            self.store.set_alarm(*alarm, on).await.map_err(store_status)?;
        }
        Ok(changed)
    }

    /// The store's image as it is: it has the length and the checksum that etcdctl expects.
    async fn send_snapshot(&self, mut snapshot: Snapshot, out: &mpsc::Sender<Chunk>) {
        let header = self.header(snapshot.revision);
        let mut sent = 0_u64;
        while let Some(chunk) = snapshot.chunks.recv().await {
            sent += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            let response = chunk.map_err(store_status).map(|blob| pb::SnapshotResponse {
                header,
                remaining_bytes: snapshot.bytes.saturating_sub(sent),
                blob,
                version: ETCD_VERSION.to_owned(),
            });
            let last = response.is_err();
            if out.send(response).await.is_err() || last {
                return;
            }
        }
    }
}

fn alarm_member(alarm: Alarm) -> pb::AlarmMember {
    pb::AlarmMember { member_id: alarm.member, alarm: alarm.kind }
}

/// As etcd prints it.
fn alarm_text(alarm: &Alarm) -> String {
    let kind = match alarm.kind() {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    format!("memberID:{} alarm:{kind} ", alarm.member)
}

#[cfg(test)]
#[path = "maintenance_test.rs"]
mod tests;
