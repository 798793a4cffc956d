//! `etcdserverpb.Cluster`: the masters as etcd's members.

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::cluster_server::Cluster;
use quorate_store::Member;
use tonic::{Request, Response, Status};

use super::Etcd;
use super::error::store_status;

#[tonic::async_trait]
impl Cluster for Etcd {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.guard(&request)?.admin()?;
        Err(not_yet())
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.guard(&request)?.admin()?;
        Err(not_yet())
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.guard(&request)?.admin()?;
        Err(not_yet())
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
        Ok(Response::new(pb::MemberListResponse {
            header: self.header_now(),
            members: self.members(),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.guard(&request)?.admin()?;
        Err(not_yet())
    }
}

fn not_yet() -> Status {
    Status::unimplemented("etcdserver: members are changed with `quorate members`")
}

impl Etcd {
    fn members(&self) -> Vec<pb::Member> {
        self.store.status().members.into_iter().map(|status| member(status.member)).collect()
    }
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
