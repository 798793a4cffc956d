//! Code generated from `proto/`: messages, clients and servers of Quorate's own services.
#![allow(missing_docs, unused_qualifications, rust_2018_idioms, clippy::all, clippy::pedantic)]

mod tls;

pub use tls::Tls;

/// The public API, `quorate.v1`.
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}

/// Between masters: Raft, forwarding, snapshots. Not an API.
pub mod peer {
    tonic::include_proto!("quorate.peer.v1");
}

/// Descriptors of the public API, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorate.v1.bin"));
