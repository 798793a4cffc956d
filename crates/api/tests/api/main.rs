//! The API over real sockets: server, client and registry on the store in memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod custom;
mod faults;
mod master;
mod nodes;
mod noise;
mod objects;
mod rest;
mod writes;
