//! [`AuthCache`]: what this master knows of users, kept up to date, and the rights that follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcd::authpb::{Permission, permission::Type};
use quorate_store::{KeyRange, Revision};
use tokio::sync::watch;

use super::ROOT;
use super::state::{State, User};

/// A state with the rights of its users worked out.
#[derive(Default)]
pub(crate) struct AuthView {
    /// Modification revision of the key; 0 when there is none.
    pub revision: Revision,
    pub state: State,
    permissions: BTreeMap<String, Arc<Permissions>>,
}

impl AuthView {
    pub(crate) fn new(revision: Revision, state: State) -> Self {
        let of = |user: &User| (user.name.clone(), Arc::new(Permissions::of(&state, user)));
        let permissions = state.users.iter().map(of).collect();
        Self { revision, state, permissions }
    }

    pub(crate) fn permissions(&self, user: &User) -> Rights {
        self.permissions.get(&user.name).map_or(Rights::Nobody, |p| Rights::User(p.clone()))
    }
}

/// The newest [`AuthView`] of this master.
#[derive(Clone)]
pub(crate) struct AuthCache(Arc<watch::Sender<Arc<AuthView>>>);

impl Default for AuthCache {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::default())))
    }
}

impl AuthCache {
    pub(crate) fn view(&self) -> Arc<AuthView> {
        self.0.borrow().clone()
    }

    /// Takes a view unless a newer one is there already.
    pub(crate) fn offer(&self, view: AuthView) {
        self.0.send_if_modified(|now| {
            let newer = view.revision > now.revision;
            if newer {
                *now = Arc::new(view);
            }
            newer
        });
    }
}

/// What a caller may do as far as users and roles decide it.
#[derive(Clone)]
pub(crate) enum Rights {
    /// Everything: authentication is off.
    All,
    /// What the user's roles say.
    User(Arc<Permissions>),
    /// Nothing: authentication is on, and the caller has said no name.
    Nobody,
}

/// The keys that a user may reach.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Permissions {
    pub user: String,
    pub roles: Vec<String>,
    pub root: bool,
    read: Vec<Span>,
    write: Vec<Span>,
}

/// Keys from the first up to the second, exclusively; without the second, all that follow.
type Span = (Bytes, Option<Bytes>);

impl Permissions {
    fn of(state: &State, user: &User) -> Self {
        let granted = user.roles.iter().filter_map(|role| state.role(role).ok());
        let all: Vec<&Permission> = granted.flat_map(|role| &role.key_permission).collect();
        let spans = |unless: Type| {
            let wanted = all.iter().filter(|permission| permission.perm_type() != unless);
            merge(wanted.map(|p| span(&p.key, &p.range_end)).collect())
        };
        Self {
            user: user.name.clone(),
            root: user.roles.iter().any(|role| role == ROOT),
            roles: user.roles.clone(),
            read: spans(Type::Write),
            write: spans(Type::Read),
        }
    }

    pub(crate) fn may_read(&self, range: &KeyRange) -> bool {
        self.root || covers(&self.read, range)
    }

    pub(crate) fn may_write(&self, range: &KeyRange) -> bool {
        self.root || covers(&self.write, range)
    }
}

fn span(key: &Bytes, end: &Bytes) -> Span {
    let end = match end.as_ref() {
        [] => Some(Bytes::from([key.as_ref(), &[0]].concat())),
        [0] => None,
        _ => Some(end.clone()),
    };
    (key.clone(), end)
}

/// Joins what overlaps or touches, so that a range covered by two permissions is covered.
fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort();
    let mut merged: Vec<Span> = Vec::new();
    for (key, end) in spans {
        match merged.last_mut() {
            Some((_, last)) if last.as_ref().is_none_or(|last| *last >= key) => {
                let longer = match (&*last, &end) {
                    (None, _) => false,
                    (_, None) => true,
                    (Some(last), Some(end)) => end > last,
                };
                if longer {
                    *last = end;
                }
            }
            _ => merged.push((key, end)),
        }
    }
    merged
}

fn covers(spans: &[Span], range: &KeyRange) -> bool {
    let (key, end) = span(&range.key, &range.end);
    spans.iter().any(|(first, last)| {
        let ends = match (last, &end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(last), Some(end)) => end <= last,
        };
        *first <= key && ends
    })
}

#[cfg(test)]
#[path = "view_test.rs"]
mod tests;
