#![doc = include_str!("../OVERVIEW.md")]

mod auth;
mod authority;
mod cluster;
mod connections;
mod convert;
mod error;
mod etcd;
mod gate;
mod limits;
mod nodes;
mod objects;
mod prometheus;
mod rest;
mod scheduler;
mod server;

pub use error::{DOMAIN, internal, registry_status};
pub use gate::Metrics;
pub use limits::{MAX_REQUEST_BYTES, REQUEST_TIMEOUT};
pub use server::{ApiError, ApiOptions, Explain, Server};
