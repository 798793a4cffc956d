//! Local clusters of real processes, fault injection, and what the tests and the demo share.
//!
//! Nothing here links the server: clusters are started by `quorate up`, seen through the
//! client, and checked against what Docker and the operating system say.

mod breaking;
#[cfg(test)]
mod closed;
pub mod cluster;
pub mod docker;
pub mod etcdctl;
pub mod helm;
pub mod host;
pub mod http;
pub mod image;
pub mod kubectl;
pub mod links;
pub mod load;
pub mod membership;
mod nodes;
pub mod ports;
pub mod process;
mod sockets;
pub mod suite;
pub mod wait;
pub mod writer;

pub use cluster::{Options, TestCluster};
pub use helm::Helm;
pub use kubectl::Kubectl;
pub use wait::wait_for;
