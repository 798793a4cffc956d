//! Calls on the cluster itself.

use futures::future::join_all;
use quorate_proto::v1;
use quorate_proto::v1::cluster_client::ClusterClient;
use tokio::time::timeout;
use tonic::{Code, Request};

use crate::call::{Repeat, call};
use crate::error::{Outcome, classify};
use crate::{Client, ClientError};

impl Client {
    /// The view of whichever master answers first. Needs no quorum.
    ///
    /// # Errors
    /// `Unreachable` when none answers.
    pub async fn status(&self) -> Result<v1::StatusResponse, ClientError> {
        let request = v1::StatusRequest {};
        call(&self.pool, &self.options, "status", Repeat::Safe, request, |c, r| async {
            ClusterClient::new(c).status(r).await
        })
        .await
    }

    /// The view of every master, in the order of [`Client::endpoints`], all asked at once.
    pub async fn statuses(&self) -> Vec<(String, Result<v1::StatusResponse, ClientError>)> {
        join_all(self.pool.iter().map(|master| async {
            let mut cluster = ClusterClient::new(master.channel.clone());
            let request = Request::new(v1::StatusRequest {});
            let unavailable = |text| ClientError::new(Code::Unavailable, "Unreachable", text);
            let answer = match timeout(self.options.attempt_timeout, cluster.status(request)).await
            {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(match classify(status) {
                    Outcome::Final(error) | Outcome::Later(error) => error,
                    Outcome::NotSent(text) | Outcome::Broken(text) => unavailable(text),
                }),
                Err(_) => Err(unavailable("no answer in time".to_owned())),
            };
            (master.url.clone(), answer)
        }))
        .await
    }

    /// The members of the store.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn members(&self) -> Result<Vec<v1::Member>, ClientError> {
        let request = v1::MembersRequest {};
        let members =
            call(&self.pool, &self.options, "list members", Repeat::Safe, request, |c, r| async {
                ClusterClient::new(c).members(r).await
            });
        Ok(members.await?.members)
    }

    /// Hands leadership over, to the master with this name or (`None`) to whichever is ready.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn transfer_leader(
        &self,
        to: Option<&str>,
    ) -> Result<v1::TransferLeaderResponse, ClientError> {
        let request = v1::TransferLeaderRequest { to: to.unwrap_or_default().to_owned() };
        let what = "transfer leadership";
        call(&self.pool, &self.options, what, Repeat::Unsafe, request, |c, r| async {
            ClusterClient::new(c).transfer_leader(r).await
        })
        .await
    }

    /// Adds a member of the store.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn add_member(
        &self,
        request: v1::AddMemberRequest,
    ) -> Result<v1::Member, ClientError> {
        let what = "add a master";
        let added = call(&self.pool, &self.options, what, Repeat::Unsafe, request, |c, r| async {
            ClusterClient::new(c).add_member(r).await
        });
        Ok(added.await?.member.unwrap_or_default())
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn promote_member(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::PromoteMemberRequest { name: name.to_owned() };
        let what = "promote a master";
        let done = call(&self.pool, &self.options, what, Repeat::Unsafe, request, |c, r| async {
            ClusterClient::new(c).promote_member(r).await
        });
        done.await.map(drop)
    }

    /// Removes a member of the store for good.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn remove_member(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::RemoveMemberRequest { name: name.to_owned() };
        let what = "remove a master";
        let done = call(&self.pool, &self.options, what, Repeat::Unsafe, request, |c, r| async {
            ClusterClient::new(c).remove_member(r).await
        });
        done.await.map(drop)
    }

    /// A complete image of what one master has applied; its first chunk holds the revision.
    ///
    /// # Errors
    /// What every call can meet; the stream itself can break, too.
    pub async fn snapshot(&self) -> Result<tonic::Streaming<v1::SnapshotChunk>, ClientError> {
        let request = v1::SnapshotRequest {};
        let what = "take a snapshot";
        call(&self.pool, &self.options, what, Repeat::Safe, request, |c, r| async {
            ClusterClient::new(c).snapshot(r).await
        })
        .await
    }
}
