//! etcd's v3 API on our store: one file per service, `Etcd` implements them all.
//!
//! Handlers decode, call the store and encode. What clients match on (codes, messages, revisions
//! in headers) is etcd's, as clientv3, etcdctl and jetcd expect it.

mod access;
mod auth;
mod cluster;
mod convert;
mod election;
mod error;
mod kv;
mod lease;
mod lock;
mod maintenance;
#[cfg(test)]
mod model_test;
mod queue;
#[cfg(test)]
mod testing;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::auth_server::AuthServer;
use quorate_proto::etcd::etcdserverpb::cluster_server::ClusterServer;
use quorate_proto::etcd::etcdserverpb::kv_server::KvServer;
use quorate_proto::etcd::etcdserverpb::lease_server::LeaseServer;
use quorate_proto::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_proto::etcd::etcdserverpb::watch_server::WatchServer;
use quorate_proto::etcd::v3electionpb::election_server::ElectionServer;
use quorate_proto::etcd::v3lockpb::lock_server::LockServer;
use quorate_store::{Leadership, MemberId, Revision, SharedStore};
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::service::RoutesBuilder;

use crate::auth::Auth;
use crate::limits::{MAX_REQUEST_BYTES, deadline};

/// Names of the services, for health checks.
pub(crate) const SERVICES: &[&str] =
    &["etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"];

/// Calls that stay open as long as the client likes.
pub(crate) const STREAMS: &[&str] = &[
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/Defragment",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Observe",
    "/v3lockpb.Lock/Lock",
];

/// A watch that asked for progress hears of it this often, as in etcd.
const PROGRESS_NOTIFY: Duration = Duration::from_secs(10 * 60);

/// Is this a path of etcd's API?
pub(crate) fn is_etcd(path: &str) -> bool {
    ["/etcdserverpb.", "/v3electionpb.", "/v3lockpb."].iter().any(|p| path.starts_with(p))
}

use auth::{AuthCache, Hasher};
pub(crate) use error::{too_large, too_many_requests};

/// Settings of the etcd API.
#[derive(Clone)]
pub(crate) struct EtcdOptions {
    /// Identity of the cluster; clients see a number made of it.
    pub cluster_id: String,
    /// Version of the binary.
    pub version: String,
    /// What callers are to the cluster. `None`: plain HTTP on loopback, whoever reaches it may
    /// manage the etcd API, as with etcd.
    pub auth: Option<Arc<Auth>>,
    /// Without `auth`, every caller is a cluster admin, too.
    pub all_admins: bool,
    /// Interval of progress notifications.
    pub progress_notify: Duration,
}

impl EtcdOptions {
    pub(crate) fn new(cluster_id: &str, version: &str) -> Self {
        Self {
            cluster_id: cluster_id.to_owned(),
            version: version.to_owned(),
            auth: None,
            all_admins: false,
            progress_notify: PROGRESS_NOTIFY,
        }
    }
}

/// etcd's services on a store.
#[derive(Clone)]
pub(crate) struct Etcd {
    store: SharedStore,
    options: Arc<EtcdOptions>,
    cluster_id: u64,
    member_id: MemberId,
    leadership: channel::Receiver<Leadership>,
    auth: AuthCache,
    hasher: Hasher,
    cancel: CancellationToken,
}

impl Etcd {
    /// Reads users and roles, and follows them until `cancel`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn start(
        store: SharedStore,
        options: EtcdOptions,
        cancel: CancellationToken,
    ) -> Result<Self, Status> {
        let etcd = Self {
            cluster_id: number(&options.cluster_id),
            member_id: store.status().id,
            leadership: store.leadership(),
            store,
            options: Arc::new(options),
            auth: AuthCache::default(),
            hasher: Hasher::default(),
            cancel,
        };
        etcd.read_users().await?;
        tokio::spawn(etcd.clone().follow_users());
        Ok(etcd)
    }

    /// Adds all services.
    pub(crate) fn register(&self, routes: &mut RoutesBuilder) {
        macro_rules! add {
            ($($server:ident),+) => {$(
                routes.add_service(
                    $server::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES),
                );
            )+};
        }
        add!(KvServer, WatchServer, LeaseServer, ClusterServer, MaintenanceServer);
        add!(AuthServer, ElectionServer, LockServer);
    }

    /// The header of every response.
    fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: convert::signed(revision),
            raft_term: self.leadership.borrow().term,
        })
    }

    /// The same for what does not depend on a revision.
    fn header_now(&self) -> Option<pb::ResponseHeader> {
        self.header(*self.store.applied().borrow())
    }

    /// Carries out `work` within the request's deadline.
    async fn within<T>(
        &self,
        metadata: &MetadataMap,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        deadline(metadata, work).await.unwrap_or_else(|_| Err(error::timed_out()))
    }
}

/// etcd's clusters have numbers, ours have texts: FNV-1a, so that all members say the same.
fn number(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
