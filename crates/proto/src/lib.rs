//! Code generated from `proto/`: messages, clients and servers of Quorate's own services, and of
//! etcd's; the decoder of Kubernetes' protobuf; TLS files; what a failed call has certainly not done.
#![allow(missing_docs, unused_qualifications, rust_2018_idioms, clippy::all, clippy::pedantic)]

mod failed;
pub mod kubernetes;
mod tls;

pub use failed::never_sent;
pub use tls::{MASTERS, Subject, Tls};

/// The public API, `quorate.v1`.
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}

/// Between masters: Raft, forwarding, snapshots. Not an API.
pub mod peer {
    tonic::include_proto!("quorate.peer.v1");
}

/// etcd's v3 API: the same messages on the wire, in `.proto` files of our own. One module per
/// package, named as etcd names it.
pub mod etcd {
    /// Keys, values and events.
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    /// Users, roles and permissions.
    pub mod authpb {
        tonic::include_proto!("authpb");
    }
    /// The services KV, Watch, Lease, Cluster, Maintenance and Auth.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    /// The service Election.
    pub mod v3electionpb {
        tonic::include_proto!("v3electionpb");
    }
    /// The service Lock.
    pub mod v3lockpb {
        tonic::include_proto!("v3lockpb");
    }
}

/// Descriptors of the public APIs, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
