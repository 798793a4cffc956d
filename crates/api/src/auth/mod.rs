//! Who a caller is, and what it may do.
//!
//! ```text
//!  certificate ─┐
//!  bearer token ┼─ authenticate ─▶ User ─▶ authorize ─▶ yes, or 403 in Kubernetes' words
//!  impersonation┘   (gate.rs)               ├ system:masters: everything
//!                                           ├ node.rs: what a node's agent needs
//!                                           └ rbac.rs: roles and bindings, from the cache
//! ```
//!
//! Everything is answered from the registry's cache, so that no request waits for it and a master
//! without a quorum still knows its users; only who writes roles and bindings waits until it is up to
//! date. Without TLS (loopback only) everybody is an admin.

mod escalation;
mod grpc;
mod impersonate;
mod node;
mod rbac;
mod review;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use quorate_objects::{Kind, kinds};
use quorate_proto::Subject;
use quorate_registry::{Admission, Consistency, Registry, RegistryError};

use crate::connections::Peer;

pub(crate) use quorate_proto::MASTERS;
pub(crate) use review::Review;
pub(crate) use token::{Issued, TokenError, Wanted, account_of};

/// Agents of nodes are in it.
pub(crate) const NODES: &str = "system:nodes";
/// Names of agents: `system:node:NAME`.
pub(crate) const NODE_PREFIX: &str = "system:node:";
/// Names of service accounts: `system:serviceaccount:NAMESPACE:NAME`.
pub(crate) const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const AUTHENTICATED: &str = "system:authenticated";

/// Somebody who has shown who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whoever reaches a master without TLS, which is on the same machine.
    pub(crate) fn trusted() -> Self {
        Self { name: "system:admin".into(), ..Self::default() }.with_groups([MASTERS.to_owned()])
    }

    /// The user of a verified certificate: its common name, and its organisations as groups.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let Subject { common_name: name, organisations } = Subject::of(der)?;
        Some(Self { name, ..Self::default() }.with_groups(organisations))
    }

    fn with_groups(mut self, groups: impl IntoIterator<Item = String>) -> Self {
        self.groups = groups.into_iter().collect();
        if !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Is this an agent, and not an administrator at the same time?
    pub(crate) fn is_agent(&self) -> bool {
        self.node().is_some() && !self.is_in(MASTERS)
    }

    /// The node whose agent this is.
    pub(crate) fn node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|_| self.is_in(NODES))
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `create`, …
    pub verb: String,
    pub group: String,
    /// Empty for a path that is no resource.
    pub resource: String,
    pub subresource: String,
    /// "" for all namespaces, or for resources without.
    pub namespace: String,
    pub name: String,
    /// `/metrics`, when it is no resource.
    pub path: String,
}

impl Attributes {
    pub(crate) fn path(verb: &str, path: &str) -> Self {
        Self { verb: verb.to_owned(), path: path.to_owned(), ..Self::default() }
    }

    /// `deployments.apps`
    pub(crate) fn resource_and_group(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// `pods`, `pods/log`
    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// The namespace in which a request for an object is judged. A namespace is in itself, as in
/// Kubernetes: whoever has a role there may see it.
pub(crate) fn judged_in<'a>(
    group: &str,
    resource: &str,
    namespace: &'a str,
    name: &'a str,
) -> &'a str {
    let itself = group.is_empty() && resource == kinds::NAMESPACE.plural;
    if itself { name } else { namespace }
}

/// May they?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub allowed: bool,
    /// Why; empty when nothing allows it.
    pub reason: String,
}

/// Authentication and authorisation over the registry's cache.
pub(crate) struct Auth {
    registry: Registry,
    tokens: token::Tokens,
}

impl Auth {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { tokens: token::Tokens::new(registry.clone()), registry }
    }

    /// Who sends this; `None` when they do not show it, or what they show is not valid. A
    /// certificate counts before a token.
    pub(crate) fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Option<Arc<User>> {
        if let Some(user) = &peer.user {
            return Some(Arc::clone(user));
        }
        self.tokens.authenticate(bearer(headers)?).ok().map(Arc::new)
    }

    /// Who they want to be instead, when they may be: `Impersonate-User`, `Impersonate-Group`,
    /// `Impersonate-Uid`, `Impersonate-Extra-KEY`.
    ///
    /// # Errors
    /// The text of a refusal.
    pub(crate) fn impersonate(
        &self,
        user: Arc<User>,
        headers: &HeaderMap,
    ) -> Result<Arc<User>, String> {
        match impersonate::wanted(headers)? {
            None => Ok(user),
            Some(other) => {
                impersonate::needs(&other).iter().try_for_each(|need| self.require(&user, need))?;
                Ok(Arc::new(other.complete()))
            }
        }
    }

    /// May the user do this?
    pub(crate) fn authorize(&self, user: &User, wanted: &Attributes) -> Decision {
        if user.is_in(MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        if let Some(node) = user.node()
            && node::allows(&self.registry, node, wanted)
        {
            return Decision { allowed: true, reason: "node".into() };
        }
        rbac::decide(&self.registry, user, wanted)
    }

    /// [`Self::authorize`], or the text of the refusal.
    ///
    /// # Errors
    /// In Kubernetes' words.
    pub(crate) fn require(&self, user: &User, wanted: &Attributes) -> Result<(), String> {
        if self.authorize(user, wanted).allowed { Ok(()) } else { Err(refusal(user, wanted)) }
    }

    /// Makes a token of a service account for this caller, who may do so. Agents get those only
    /// that end with a pod of their node.
    ///
    /// # Errors
    /// When the account or the pod is not there, or is not the caller's to ask for.
    pub(crate) async fn issue(&self, user: &User, wanted: &Wanted) -> Result<Issued, TokenError> {
        self.tokens.issue(wanted, user.node().filter(|_| user.is_agent())).await
    }

    /// May this caller call this gRPC method at all? Objects are checked where they are known.
    ///
    /// # Errors
    /// The text of the refusal.
    pub(crate) fn require_call(&self, user: &User, path: &str) -> Result<(), String> {
        grpc::wanted(path).map_or(Ok(()), |wanted| self.require(user, &wanted))
    }

    /// May the caller use the store through etcd's API?
    pub(crate) fn may_use_store(&self, user: &User) -> bool {
        self.authorize(user, &grpc::store()).allowed
    }

    /// What a write of roles and bindings by this user has to pass: nobody gives what they do not
    /// have. Other kinds pass.
    ///
    /// # Errors
    /// When the cache cannot be brought up to date.
    pub(crate) async fn admission(
        self: &Arc<Self>,
        user: &Arc<User>,
        kind: &Kind,
    ) -> Result<Option<Admission>, RegistryError> {
        if user.is_in(MASTERS) || kind.group != quorate_objects::rbac::GROUP {
            return Ok(None);
        }
        // Another master may have written a binding's role a moment ago.
        self.registry.freshen(Consistency::Linearizable).await?;
        let (auth, user) = (Arc::clone(self), Arc::clone(user));
        Ok(Some(Admission::new(move |new| escalation::check(&auth, &user, new))))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// A refusal in Kubernetes' words.
fn refusal(user: &User, wanted: &Attributes) -> String {
    let Attributes { verb, group, namespace, name, path, .. } = wanted;
    if wanted.resource.is_empty() {
        return format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
    }
    let resource = wanted.resource_and_group();
    let what = if name.is_empty() { resource } else { format!("{resource} {name:?}") };
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    format!(
        "{what} is forbidden: User {:?} cannot {verb} resource {:?} in API group {group:?} {scope}",
        user.name,
        wanted.full_resource()
    )
}

#[cfg(test)]
#[path = "auth_test.rs"]
mod tests;
