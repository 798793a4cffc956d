//! `etcdserverpb.Cluster`: the masters as etcd's members.

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::cluster_server::Cluster;
use quorate_store::{Member, NewMember, StoreError, StoreStatus};
use tonic::{Request, Response, Status};

use super::Etcd;
use super::error::{self, store_status};

#[tonic::async_trait]
impl Cluster for Etcd {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.guard(&request)?.admin()?;
        let (metadata, _, r) = request.into_parts();
        let new = NewMember {
            peer_url: peer_url(r.peer_ur_ls)?,
            learner: r.is_learner,
            ..NewMember::default()
        };
        let add = async { self.store.member_add(new).await.map_err(change_status) };
        let added = self.within(&metadata, add).await?;
        Ok(Response::new(pb::MemberAddResponse {
            header: self.header_now(),
            member: Some(member(added)),
            members: self.members(),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.guard(&request)?.admin()?;
        let (metadata, _, r) = request.into_parts();
        let remove = async { self.store.member_remove(r.id).await.map_err(change_status) };
        self.within(&metadata, remove).await?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.header_now(),
            members: self.members(),
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.guard(&request)?.admin()?;
        let r = request.into_inner();
        let url = peer_url(r.peer_ur_ls)?;
        let members = self.known_members()?;
        let known = members.iter().find(|m| m.id == r.id).ok_or_else(error::member_not_found)?;
        if known.peer_ur_ls != [url] {
            let text = "etcdserver: a member's address does not change: remove it, and add another";
            return Err(Status::unimplemented(text));
        }
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header_now(), members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.guard(&request)?;
        let (metadata, _, r) = request.into_parts();
        if r.linearizable {
            let read = async { self.store.read_revision().await.map_err(store_status) };
            self.within(&metadata, read).await?;
        }
        let members = self.known_members()?;
        Ok(Response::new(pb::MemberListResponse { header: self.header_now(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.guard(&request)?.admin()?;
        let (metadata, _, r) = request.into_parts();
        let promote = async {
            self.store.member_promote(r.id).await.map_err(|error| match error {
                StoreError::Membership(_) => error::learner_not_ready(),
                other => change_status(other),
            })
        };
        self.within(&metadata, promote).await?;
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.header_now(),
            members: self.members(),
        }))
    }
}

impl Etcd {
    /// The members, unless this one has not been admitted yet and knows of none.
    fn known_members(&self) -> Result<Vec<pb::Member>, Status> {
        let status = self.store.status();
        if !status.knows_itself() {
            return Err(error::not_admitted());
        }
        Ok(members(status))
    }

    fn members(&self) -> Vec<pb::Member> {
        members(self.store.status())
    }
}

fn members(status: StoreStatus) -> Vec<pb::Member> {
    status.members.into_iter().map(|status| member(status.member)).collect()
}

/// etcd's members may have several addresses, ours have one.
fn peer_url(urls: Vec<String>) -> Result<String, Status> {
    match <[String; 1]>::try_from(urls) {
        Ok([url]) if url.starts_with("http://") || url.starts_with("https://") => Ok(url),
        _ => Err(error::member_bad_urls()),
    }
}

/// Clients know one message for changes that cannot be made; the reason goes to the log.
fn change_status(error: StoreError) -> Status {
    if let StoreError::Membership(reason) = &error {
        tracing::info!(%reason, "a change of members was refused");
        return error::not_enough_started();
    }
    store_status(error)
}

fn member(member: Member) -> pb::Member {
    let url = |url: String| Some(url).filter(|url| !url.is_empty()).into_iter().collect();
    pb::Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: url(member.peer_url),
        client_ur_ls: url(member.client_url),
        is_learner: member.learner,
    }
}
