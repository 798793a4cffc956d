#![doc = include_str!("../OVERVIEW.md")]

pub mod affinity;
pub mod custom;
mod decode;
mod error;
pub mod job;
pub mod jsonpath;
mod kind;
pub mod kinds;
pub mod manifest;
mod meta;
pub mod names;
pub mod net;
pub mod node;
pub mod pod;
pub mod quantity;
pub mod rbac;
pub mod schedule;
mod selector;
pub mod storage;
mod template;
pub mod time;

pub use decode::{FieldValidation, decode, decode_complete, decode_with};
pub use error::{Errors, FieldError, FieldErrorKind, Invalid};
pub use kind::{Column, Decoded, Kind, ScalePaths, Typed};
pub use kinds::kinds;
pub use selector::{FieldSelector, Selector, SelectorError};

pub use k8s_openapi;

#[cfg(test)]
mod kinds_test;
#[cfg(test)]
mod workloads_test;
