//! Who calls, and what the caller may touch.

use quorate_store::KeyRange;
use tonic::{Request, Status};

use super::Etcd;
use super::error::permission_denied;

/// Quorate's own objects: to be changed by cluster admins only, and by everybody else through
/// the API that knows their rules.
const REGISTRY: &[u8] = b"/registry/";
/// Keys from here on can be reached; before it lie those that the API keeps for itself. etcd has
/// no such limit, but keys that begin with a zero byte are not in use anywhere that we know of.
const FIRST_KEY: &[u8] = &[1];

/// What a caller may do.
pub(crate) struct Guard {
    cluster_admin: bool,
}

impl Etcd {
    /// The one place where the etcd API learns who calls.
    ///
    /// # Errors
    /// When the caller may not call at all.
    pub(crate) fn guard<T>(&self, _request: &Request<T>) -> Result<Guard, Status> {
        Ok(Guard { cluster_admin: self.options.all_admins })
    }
}

impl Guard {
    /// May the caller change the cluster itself?
    pub(crate) fn admin(&self) -> Result<(), Status> {
        if self.cluster_admin { Ok(()) } else { Err(permission_denied()) }
    }

    /// The part of a range that the caller may read.
    pub(crate) fn read(&self, range: KeyRange) -> Result<KeyRange, Status> {
        Ok(reachable(range))
    }

    /// The part of a range that the caller may delete.
    pub(crate) fn delete(&self, range: KeyRange) -> Result<KeyRange, Status> {
        let range = reachable(range);
        if !self.cluster_admin && overlaps(&range, REGISTRY) {
            return Err(permission_denied());
        }
        Ok(range)
    }

    /// May the caller write this key?
    pub(crate) fn write(&self, key: &[u8]) -> Result<(), Status> {
        let allowed = key >= FIRST_KEY && (self.cluster_admin || !key.starts_with(REGISTRY));
        if allowed { Ok(()) } else { Err(permission_denied()) }
    }
}

/// Takes away what is reserved; what then is left may be nothing.
fn reachable(mut range: KeyRange) -> KeyRange {
    let first = || bytes::Bytes::from_static(FIRST_KEY);
    if range.key.as_ref() >= FIRST_KEY {
        return range;
    }
    range.key = first();
    if range.is_single() || (!range.is_unbounded() && range.end.as_ref() < FIRST_KEY) {
        range.end = first();
    }
    range
}

/// Does a range hold keys that start with `prefix`?
fn overlaps(range: &KeyRange, prefix: &[u8]) -> bool {
    if range.is_single() {
        return range.key.starts_with(prefix);
    }
    let end = quorate_store::prefix_end(prefix);
    range.key < end && (range.is_unbounded() || range.end.as_ref() > prefix)
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
