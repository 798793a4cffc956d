//! A client of etcd's API: the same for both systems.

use std::time::Duration;

use anyhow::Result;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};

/// Size of each value.
pub const VALUE_BYTES: usize = 256;
/// Keys that the loads work on.
pub const KEY_SPACE: u64 = 10_000;
/// Longest time for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection.
pub type Kv = KvClient<Channel>;

/// Opens a connection, with the window sizes of a server to server link.
pub async fn connect(url: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

/// For watches: streams have no deadline.
pub async fn connect_watch(url: &str) -> Result<WatchClient<Channel>> {
    let endpoint =
        Endpoint::from_shared(url.to_owned())?.connect_timeout(TIMEOUT).tcp_nodelay(true);
    Ok(WatchClient::new(endpoint.connect().await?))
}

pub fn key(number: u64) -> Vec<u8> {
    format!("bench/{number:012}").into_bytes()
}

pub fn put(number: u64) -> pb::PutRequest {
    // Values differ, as those of real programs do.
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    pb::PutRequest { key: key(number).into(), value: value.into(), ..Default::default() }
}

pub fn get(number: u64, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest { key: key(number).into(), serializable, ..Default::default() }
}

/// How many keys this very member has.
pub fn count() -> pb::RangeRequest {
    pb::RangeRequest {
        key: "bench/".into(),
        range_end: "bench0".into(),
        serializable: true,
        count_only: true,
        ..Default::default()
    }
}
