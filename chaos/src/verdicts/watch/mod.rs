//! What a watch promises (etcd's words: ordered, unique, reliable, atomic, resumable,
//! bookmarkable). One file per promise.

pub(super) mod atomic;
pub(super) mod bookmarks;
pub(super) mod ordered;
pub(super) mod previous;
pub(super) mod reliable;
pub(super) mod resumable;
pub(super) mod unique;

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
