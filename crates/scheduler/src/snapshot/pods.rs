//! Pods as the snapshot knows them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::topology::ClassId;
use crate::needs::Needs;

/// `namespace/name` of a pod, with its uid: a later pod of the same name is another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl PodKey {
    /// The key of a pod.
    #[must_use]
    pub fn of(object: &Pod) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            namespace: text(&object.metadata.namespace),
            name: text(&object.metadata.name),
            uid: text(&object.metadata.uid),
        }
    }
}

pub(crate) type PodId = u32;

/// Needs that the snapshot knows: all pods with equal needs share one. Keeps its entry alive.
#[derive(Clone, Debug)]
pub struct Class {
    pub(super) id: ClassId,
    pub(super) needs: Arc<Needs>,
}

impl Class {
    /// What each of its pods needs.
    #[must_use]
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Its number among those alive.
    pub(crate) fn id(&self) -> ClassId {
        self.id
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.needs, &other.needs)
    }
}

/// A pod on a node.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub key: PodKey,
    pub slot: usize,
    pub class: Class,
    /// Decided by us, not shown by the cache yet.
    pub assumed: bool,
    pub deleting: bool,
    /// When it started, or was created; seconds since 1970.
    pub since: i64,
}

/// When a pod started, or was created, as [`Placed::since`].
pub(super) fn since(object: &Pod) -> i64 {
    let started = object.status.as_ref().and_then(|status| status.start_time.as_ref());
    let time = started.or(object.metadata.creation_timestamp.as_ref());
    time.map_or(i64::MAX, |time| time.0.as_second())
}
