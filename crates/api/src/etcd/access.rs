//! Who calls, and what the caller may touch.

use std::sync::Arc;

use bytes::Bytes;
use quorate_store::KeyRange;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::Etcd;
use super::auth::Rights;
use super::error::{permission_denied, user_empty};
use crate::auth::{MASTERS, User};

/// Quorate's own objects, and what Services have been allotted: to be changed by cluster admins
/// only, and by everybody else through the API that knows their rules.
const CLUSTERS: [&[u8]; 2] = [b"/registry/", b"/registry-alloc/"];
/// Keys from here on can be reached; before it lie those that the API keeps for itself. etcd has
/// no such limit, but keys that begin with a zero byte are not in use anywhere that we know of.
const FIRST_KEY: &[u8] = &[1];
/// Where clients put tokens: etcd's own, and those that speak to its gateway.
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];

/// What a caller may do. Two questions are asked, and both must be answered with yes: what is the
/// caller to the cluster, and what do the users and roles of the etcd API say?
pub(crate) struct Guard {
    standing: Standing,
    rights: Rights,
}

/// What a caller is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// May change the cluster's objects and its members: in `system:masters`, or plain HTTP and
    /// the master's option says so.
    Admin,
    /// Plain HTTP on loopback: manages the etcd API, and reads the cluster's objects.
    Local,
    /// Reaches keys of its own. Does not see the cluster's, Secrets among them.
    Tenant,
}

impl Etcd {
    /// The one place where the etcd API learns who calls.
    ///
    /// # Errors
    /// When the caller shows a token that is no good, or is nobody who may use the store: while
    /// the etcd API's own authentication is off, that takes the verb `use` on the resource
    /// `stores` of the group `quorate.dev`.
    pub(crate) fn guard<T>(&self, request: &Request<T>) -> Result<Guard, Status> {
        let rights = self.rights(token(request.metadata()))?;
        let standing = match &self.options.auth {
            None if self.options.all_admins => Standing::Admin,
            None => Standing::Local,
            Some(auth) => {
                let user = request.extensions().get::<Arc<User>>().ok_or_else(permission_denied)?;
                let own_rules = !matches!(rights, Rights::All);
                if user.is_in(MASTERS) {
                    Standing::Admin
                } else if own_rules || auth.may_use_store(user) {
                    Standing::Tenant
                } else {
                    return Err(permission_denied());
                }
            }
        };
        Ok(Guard { standing, rights })
    }
}

fn token(metadata: &MetadataMap) -> Option<&str> {
    let all = TOKEN_KEYS.iter().filter_map(|key| metadata.get(*key)?.to_str().ok());
    // Bearer tokens say who calls the cluster; etcd's stand alone.
    all.into_iter().find(|text| !text.starts_with("Bearer "))
}

impl Guard {
    /// May the caller change the cluster itself?
    pub(crate) fn admin(&self) -> Result<(), Status> {
        self.manage()?;
        if self.standing == Standing::Admin { Ok(()) } else { Err(permission_denied()) }
    }

    /// May the caller do what concerns the store as a whole, such as taking a snapshot?
    pub(crate) fn operate(&self) -> Result<(), Status> {
        self.manage()?;
        if self.standing == Standing::Tenant { Err(permission_denied()) } else { Ok(()) }
    }

    /// May the caller manage users and alarms?
    pub(crate) fn manage(&self) -> Result<(), Status> {
        match &self.rights {
            Rights::All if self.standing != Standing::Tenant => Ok(()),
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
        if self.standing == Standing::Tenant && overlaps_clusters(&range) {
            return Err(permission_denied());
        }
        match &self.rights {
            Rights::All => Ok(range),
            Rights::User(permissions) if permissions.may_read(&range) => Ok(range),
            Rights::User(_) => Err(permission_denied()),
            Rights::Nobody => Err(user_empty()),
        }
    }

    /// May the caller read this key?
    pub(crate) fn read_key(&self, key: &Bytes) -> Result<(), Status> {
        if key.as_ref() < FIRST_KEY {
            return Err(permission_denied());
        }
        self.read(KeyRange::single(key.clone())).map(drop)
    }

    /// The part of a range that the caller may delete.
    pub(crate) fn delete(&self, range: KeyRange) -> Result<KeyRange, Status> {
        let range = reachable(range);
        if self.standing != Standing::Admin && overlaps_clusters(&range) {
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
        let clusters = CLUSTERS.iter().any(|prefix| key.starts_with(prefix));
        if key < FIRST_KEY || (clusters && self.standing != Standing::Admin) {
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

/// Does a range hold keys of the cluster?
fn overlaps_clusters(range: &KeyRange) -> bool {
    CLUSTERS.iter().any(|prefix| overlaps(range, prefix))
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
