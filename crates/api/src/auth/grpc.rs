//! What gRPC's methods need, as far as their path tells.

use super::Attributes;

/// Group of what Kubernetes has no resources for.
pub(crate) const GROUP: &str = "quorate.dev";

/// What use of the store through etcd's API takes, while that has no users of its own.
pub(crate) fn store() -> Attributes {
    of("use", "stores")
}

fn of(verb: &str, resource: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        resource: resource.into(),
        ..Attributes::default()
    }
}

/// What a caller of this method must be allowed to do; `None`: nothing beyond being known, or it
/// is checked where the object is known (`objects.rs`, `nodes/`, `etcd/`).
pub(crate) fn wanted(path: &str) -> Option<Attributes> {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match (service, path) {
        ("quorate.v1.Cluster", "/quorate.v1.Cluster/Status" | "/quorate.v1.Cluster/Members") => {
            None
        }
        ("quorate.v1.Cluster", _) => Some(of("update", "masters")),
        ("quorate.v1.Scheduler", _) => Some(of("get", "decisions")),
        // Checked where the object is known.
        ("quorate.v1.Objects" | "quorate.v1.Nodes", _) => None,
        // A service that is forgotten here is for admins only.
        (service, _) if service.starts_with("quorate.") => Some(of("use", service)),
        // Health and reflection; etcd's services ask for themselves (`etcd/access.rs`).
        _ => None,
    }
}
