//! Kubernetes' own protobuf encoding of objects, which its clients use for request bodies.
//!
//! A body is the four bytes `k8s\0`, then a `runtime.Unknown` with apiVersion, kind and the
//! object's message. [`decode`] makes the JSON of it that the client would have sent had it sent
//! JSON; answers are JSON always, which every client accepts. `proto/kubernetes/*.proto` hold the
//! field numbers.

mod decode;
mod schema;
mod wire;

pub use decode::{DecodeError, MEDIA_TYPE, decode};

#[cfg(test)]
#[path = "decode_test.rs"]
mod tests;
