//! `quorate.v1.Cluster`: the answering master's view of the cluster.

use std::pin::Pin;

use k8s_openapi::api::core::v1::Node;
use quorate_objects::{kinds, node};
use quorate_proto::v1;
use quorate_proto::v1::cluster_server::Cluster;
use quorate_registry::{Object, Registry, RegistryError};
use quorate_store::{MemberStatus, NewMember, Role, SharedStore, StoreError, StoreStatus};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};

use crate::error::{bad_request, registry_status, status, unavailable};
use crate::limits::{Effect, within};

/// The leader has a quorum when a majority has answered within this time.
const QUORUM_FRESH_MS: u64 = 2_000;
/// Linux' page size on the machines that we run on.
const PAGE_BYTES: u64 = 4096;

pub(crate) struct ClusterService {
    pub registry: Registry,
    pub store: SharedStore,
    pub cluster_id: String,
    pub version: String,
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Cluster for ClusterService {
    type SnapshotStream = BoxStream<v1::SnapshotChunk>;

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        let v1::AddMemberRequest { name, peer_url, client_url, learner } = r;
        if name.is_empty() {
            return Err(bad_request("name: a new master needs one"));
        }
        let add = async {
            let new = NewMember { name, peer_url, client_url, learner };
            let added = self.store.member_add(new).await.map_err(store_status)?;
            let member = MemberStatus { member: added, matched_index: None, last_contact_ms: None };
            let member = Some(describe_member(&self.store.status(), &member));
            Ok(v1::AddMemberResponse { member })
        };
        within(&metadata, Effect::Write, add).await.map(Response::new)
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        let promote = async {
            let id = self.member_id(&r.name)?;
            self.store.member_promote(id).await.map_err(store_status)?;
            Ok(v1::PromoteMemberResponse {})
        };
        within(&metadata, Effect::Write, promote).await.map(Response::new)
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        let remove = async {
            let id = self.member_id(&r.name)?;
            self.store.member_remove(id).await.map_err(store_status)?;
            Ok(v1::RemoveMemberResponse {})
        };
        within(&metadata, Effect::Write, remove).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        _: Request<v1::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let snapshot = self.store.snapshot().await.map_err(store_status)?;
        let first = v1::SnapshotChunk { revision: snapshot.revision, ..Default::default() };
        let chunks = ReceiverStream::new(snapshot.chunks).map(|chunk| match chunk {
            Ok(data) => Ok(v1::SnapshotChunk { data, revision: 0 }),
            Err(error) => Err(store_status(error)),
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(chunks))))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.describe(&self.store.status())))
    }

    async fn members(
        &self,
        _: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        let members = members(&self.known_members()?);
        Ok(Response::new(v1::MembersResponse { members }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        within(&metadata, Effect::Write, self.hand_over(r.to)).await.map(Response::new)
    }
}

impl ClusterService {
    fn describe(&self, s: &StoreStatus) -> v1::StatusResponse {
        let nodes = self.registry.cache().list(&kinds::NODE, None);
        let ready = nodes.iter().filter(|node| is_ready(node)).count();
        v1::StatusResponse {
            cluster_id: self.cluster_id.clone(),
            name: s.name.clone(),
            version: self.version.clone(),
            role: role(s.role).to_owned(),
            term: s.leadership.term,
            leader: s.leadership.leader.as_ref().map(|m| m.name.clone()).unwrap_or_default(),
            revision: s.revision,
            last_index: s.last_index,
            applied_index: s.applied_index,
            has_quorum: s.quorum_ack_ms.is_some_and(|ms| ms <= QUORUM_FRESH_MS),
            members: members(s),
            nodes_ready: u32::try_from(ready).unwrap_or(u32::MAX),
            nodes_total: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            disk_bytes: s.disk_bytes,
            resident_bytes: resident_bytes(),
            leader_work_running: s.leadership.ready.is_some(),
        }
    }

    fn member_id(&self, name: &str) -> Result<u64, Status> {
        let members = self.known_members()?.members;
        let named = members.iter().find(|m| m.member.name == name);
        named.map(|m| m.member.id).ok_or_else(|| {
            status(Code::NotFound, "NotFound", format!("there is no master {name:?}"))
        })
    }

    /// The store's status, when it tells the members; another master may know them.
    fn known_members(&self) -> Result<StoreStatus, Status> {
        let status = self.store.status();
        if status.knows_itself() {
            return Ok(status);
        }
        Err(unavailable(format!(
            "{} does not know the members: it has not been admitted to the cluster yet",
            status.name
        )))
    }

    async fn hand_over(&self, to: String) -> Result<v1::TransferLeaderResponse, Status> {
        let mut leadership = self.store.leadership();
        let now = leadership.borrow().clone();
        if now.ready.is_none() {
            return Err(registry_status(RegistryError::Unavailable {
                reason: "this master does not lead, ask the leader".into(),
                leader: now.leader.map(|m| m.client_url),
            }));
        }
        let wanted = Some(to).filter(|to| !to.is_empty());
        let to = wanted.as_deref().map(|name| self.member_id(name)).transpose()?;
        let before = leadership.borrow().leader.as_ref().map(|m| m.name.clone());
        self.store.transfer_leadership(to).await.map_err(store_status)?;
        let done = leadership.wait_for(|now| match (&now.leader, &wanted) {
            (Some(leader), Some(wanted)) => leader.name == *wanted,
            (Some(leader), None) => Some(&leader.name) != before.as_ref(),
            (None, _) => false,
        });
        let now = done.await.map_err(|_| unavailable("this master is shutting down"))?;
        let leader = now.leader.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        Ok(v1::TransferLeaderResponse { leader, term: now.term })
    }
}

fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Unsupported(_) => {
            status(Code::Unimplemented, "NotImplemented", error.to_string())
        }
        StoreError::MemberNotFound(_) => status(Code::NotFound, "NotFound", error.to_string()),
        StoreError::MemberExists(_) => {
            status(Code::AlreadyExists, "AlreadyExists", error.to_string())
        }
        StoreError::Membership(_) => {
            status(Code::FailedPrecondition, "Membership", error.to_string())
        }
        error => registry_status(error.into()),
    }
}

fn members(s: &StoreStatus) -> Vec<v1::Member> {
    s.members.iter().map(|member| describe_member(s, member)).collect()
}

fn describe_member(s: &StoreStatus, m: &MemberStatus) -> v1::Member {
    let leader = s.leadership.leader.as_ref().map(|m| m.id);
    v1::Member {
        id: m.member.id,
        name: m.member.name.clone(),
        peer_url: m.member.peer_url.clone(),
        client_url: m.member.client_url.clone(),
        learner: m.member.learner,
        leader: Some(m.member.id) == leader,
        lag: m.matched_index.map(|index| s.last_index.saturating_sub(index)),
        last_contact_ms: m.last_contact_ms,
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
    }
}

fn is_ready(object: &Object) -> bool {
    object.typed::<Node>().is_ok_and(|node| node::is_ready(&node))
}

/// From the second number of `/proc/self/statm`, which counts pages; 0 when unknown.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}
