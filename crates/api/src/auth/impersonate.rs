//! Acting as somebody else: `kubectl --as`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::{Attributes, SERVICE_ACCOUNT_PREFIX, User, token};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// Group of the resources `uids` and `userextras`.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the headers name, without what follows from the name; `None` when they name nobody.
///
/// # Errors
/// When they name groups, an uid or extras, and no user.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<User>, String> {
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let first = |name: &str| all(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        let Some(key) = header.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.insert(key, all(header.as_str()));
    }
    let user = User { name: first(USER), uid: first(UID), groups: all(GROUP), extra };
    if user == User::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        let text = "groups, uid and extra are impersonated together with a user: Impersonate-User \
                    is missing";
        return Err(text.into());
    }
    Ok(Some(user))
}

/// What one must be allowed to do to act as this user.
pub(super) fn needs(user: &User) -> Vec<Attributes> {
    let need = |group: &str, resource: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut needs = vec![match account(user) {
        Some((namespace, name)) => {
            Attributes { namespace: namespace.into(), ..need("", "serviceaccounts", name) }
        }
        None => need("", "users", &user.name),
    }];
    needs.extend(user.groups.iter().map(|group| need("", "groups", group)));
    if !user.uid.is_empty() {
        needs.push(need(AUTHENTICATION, "uids", &user.uid));
    }
    for (key, values) in &user.extra {
        needs.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..need(AUTHENTICATION, "userextras", value)
        }));
    }
    needs
}

/// Namespace and name, when the user is a service account.
fn account(user: &User) -> Option<(&str, &str)> {
    user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
}

impl User {
    /// With the groups that follow from the name: those of service accounts when no others are
    /// given, and that of everybody who is known.
    pub(super) fn complete(self) -> Self {
        let groups = match account(&self) {
            Some((namespace, _)) if self.groups.is_empty() => {
                token::account_groups(namespace).into()
            }
            _ => self.groups.clone(),
        };
        self.with_groups(groups)
    }
}
