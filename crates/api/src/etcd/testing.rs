//! etcd's services over a store in memory, for the tests of this module.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_store::MemoryStore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::auth::Hasher;
use super::{Etcd, EtcdOptions};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn etcd() -> Etcd {
    etcd_with(|_| {}).await
}

pub(crate) async fn etcd_with(change: impl FnOnce(&mut EtcdOptions)) -> Etcd {
    on(MemoryStore::new(), change).await
}

/// Another master's face of the same store.
pub(crate) async fn on(store: Arc<MemoryStore>, change: impl FnOnce(&mut EtcdOptions)) -> Etcd {
    let mut options = EtcdOptions::new("test-cluster", "0.0.0");
    change(&mut options);
    let mut etcd = Etcd::start(store, options, CancellationToken::new()).await.unwrap();
    // What makes guessing slow makes tests slow.
    etcd.hasher = Hasher::new(1);
    etcd
}

/// Fails the test instead of hanging it.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("an answer within the test's patience")
}

pub(crate) fn put_of(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

impl Etcd {
    /// Puts a key; the revision after it.
    pub(crate) async fn must_put(&self, key: &str, value: &str) -> i64 {
        let response = self.put(Request::new(put_of(key, value))).await.unwrap();
        response.into_inner().header.unwrap().revision
    }

    pub(crate) async fn must_delete(&self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        let response = self.delete_range(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(response.deleted, 1);
        response.header.unwrap().revision
    }

    pub(crate) async fn must_compact(&self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: true };
        self.compact(Request::new(request)).await.unwrap();
    }

    pub(crate) async fn get(&self, key: &str) -> pb::RangeResponse {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.range(Request::new(request)).await.unwrap().into_inner()
    }
}

/// What a client compares: code and message.
pub(crate) fn said(status: &Status) -> (tonic::Code, String) {
    (status.code(), status.message().to_owned())
}
