//! Who calls, and what the caller may touch.

use bytes::Bytes;
use quorate_store::KeyRange;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::Etcd;
use super::auth::Rights;
use super::error::{permission_denied, user_empty};

/// Quorate's own objects: to be changed by cluster admins only, and by everybody else through
/// the API that knows their rules.
const REGISTRY: &[u8] = b"/registry/";
/// Keys from here on can be reached; before it lie those that the API keeps for itself. etcd has
/// no such limit, but keys that begin with a zero byte are not in use anywhere that we know of.
const FIRST_KEY: &[u8] = &[1];
/// Where clients put tokens: etcd's own, and those that speak to its gateway.
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];

/// What a caller may do. Two questions are asked, and both must be answered with yes: is it the
/// cluster's, and what do the users and roles of the etcd API say?
pub(crate) struct Guard {
    cluster_admin: bool,
    /// May callers who are no cluster admins manage the etcd API while authentication is off?
    open: bool,
    rights: Rights,
}

impl Etcd {
    /// The one place where the etcd API learns who calls.
    ///
    /// # Errors
    /// When the caller shows a token that is no good.
    pub(crate) fn guard<T>(&self, request: &Request<T>) -> Result<Guard, Status> {
        let rights = self.rights(token(request.metadata()))?;
        let open = self.options.insecure;
        Ok(Guard { cluster_admin: open && self.options.all_admins, open, rights })
    }
}

fn token(metadata: &MetadataMap) -> Option<&str> {
    TOKEN_KEYS.iter().find_map(|key| metadata.get(*key)?.to_str().ok())
}

impl Guard {
    /// May the caller change the cluster itself?
    pub(crate) fn admin(&self) -> Result<(), Status> {
        self.manage()?;
        if self.cluster_admin { Ok(()) } else { Err(permission_denied()) }
    }

    /// May the caller manage users, alarms and snapshots?
    pub(crate) fn manage(&self) -> Result<(), Status> {
        match &self.rights {
            Rights::All if self.open || self.cluster_admin => Ok(()),
            Rights::User(permissions) if permissions.root => Ok(()),
            Rights::All | Rights::User(_) => Err(permission_denied()),
            Rights::Nobody => Err(user_empty()),
        }
    }

    /// Has the caller said a name, if that is needed at all?
    pub(crate) fn authenticated(&self) -> Result<(), Status> {
        if matches!(self.rights, Rights::Nobody) { Err(user_empty()) } else { Ok(()) }
    }

    /// Is the caller this user?
    pub(crate) fn is_user(&self, name: &str) -> bool {
        matches!(&self.rights, Rights::User(permissions) if permissions.user == name)
    }

    /// Has the caller this role?
    pub(crate) fn has_role(&self, role: &str) -> bool {
        matches!(&self.rights, Rights::User(permissions) if permissions.roles.iter().any(|r| r == role))
    }

    /// The part of a range that the caller may read.
    pub(crate) fn read(&self, range: KeyRange) -> Result<KeyRange, Status> {
        let range = reachable(range);
        match &self.rights {
            Rights::All => Ok(range),
            Rights::User(permissions) if permissions.may_read(&range) => Ok(range),
            Rights::User(_) => Err(permission_denied()),
            Rights::Nobody => Err(user_empty()),
        }
    }

    /// The part of a range that the caller may delete.
    pub(crate) fn delete(&self, range: KeyRange) -> Result<KeyRange, Status> {
        let range = reachable(range);
        if !self.cluster_admin && overlaps(&range, REGISTRY) {
            return Err(permission_denied());
        }
        match &self.rights {
            Rights::All => Ok(range),
            Rights::User(permissions) if permissions.may_write(&range) => Ok(range),
            Rights::User(_) => Err(permission_denied()),
            Rights::Nobody => Err(user_empty()),
        }
    }

    /// May the caller write this key?
    pub(crate) fn write(&self, key: &[u8]) -> Result<(), Status> {
        if key < FIRST_KEY || (!self.cluster_admin && key.starts_with(REGISTRY)) {
            return Err(permission_denied());
        }
        match &self.rights {
            Rights::All => Ok(()),
            Rights::User(permissions) => {
                let range = KeyRange::single(Bytes::copy_from_slice(key));
                if permissions.may_write(&range) { Ok(()) } else { Err(permission_denied()) }
            }
            Rights::Nobody => Err(user_empty()),
        }
    }
}

/// Takes away what is reserved; what then is left may be nothing.
fn reachable(mut range: KeyRange) -> KeyRange {
    let first = || Bytes::from_static(FIRST_KEY);
    if range.key.as_ref() >= FIRST_KEY {
        return range;
    }
    let nothing = range.is_single() || (!range.is_unbounded() && range.end.as_ref() < FIRST_KEY);
    if nothing {
        range.end = first();
    }
    range.key = first();
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
