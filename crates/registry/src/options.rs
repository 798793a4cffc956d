//! Options of requests.

use bytes::Bytes;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use quorate_objects::net::Ipv4Net;
use quorate_objects::{FieldSelector, FieldValidation, Kind, Selector};
use quorate_store::Term;
use serde_json::Value;

use crate::error::RegistryError;

/// Settings of a [`crate::Registry`].
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Where Services get their addresses.
    pub service_cidr: Ipv4Net,
    /// Where Services get their node ports.
    pub node_ports: RangeInclusive<u16>,
    /// Changes kept for watchers, for each kind.
    pub watch_ring: usize,
    /// How long a request may take, retries included.
    pub request_timeout: Duration,
    /// An idle watcher hears a bookmark this often.
    pub bookmark_interval: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            service_cidr: Ipv4Net::new([10, 208, 0, 0].into(), 16),
            node_ports: 30000..=32767,
            watch_ring: 16 * 1024,
            request_timeout: Duration::from_secs(10),
            bookmark_interval: Duration::from_secs(10),
        }
    }
}

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Carry it out only while this term is the newest: leader work sets it.
    pub fence: Option<Term>,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// What unknown fields cause.
    pub field_validation: FieldValidation,
    /// Only when the object is at this revision.
    pub revision: Option<u64>,
    /// Who is to own the fields that change, in `metadata.managedFields`; `None`: nobody is
    /// recorded, as for the cluster's own work.
    pub field_manager: Option<String>,
    /// Asked before the object is written; `None`: nobody is asked.
    pub admission: Option<Admission>,
}

type Check = dyn Fn(&Value) -> Result<(), RegistryError> + Send + Sync;

/// A check of objects as they are about to be written: complete, with defaults, valid.
#[derive(Clone)]
pub struct Admission(Arc<Check>);

impl Admission {
    /// A check; it may run several times for one write.
    pub fn new(
        check: impl Fn(&Value) -> Result<(), RegistryError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(check))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl WriteOptions {
    /// Of the leader's work in `term`.
    #[must_use]
    pub fn fenced(term: Term) -> Self {
        Self { fence: Some(term), ..Self::default() }
    }

    /// Asks whoever has to be asked.
    pub(crate) fn admit(&self, new: &Value) -> Result<(), RegistryError> {
        self.admission.as_ref().map_or(Ok(()), |admission| (admission.0)(new))
    }
}

/// What happens to the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    #[default]
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Only when it has this uid.
    pub uid: Option<String>,
    /// Only when it is at this revision.
    pub revision: Option<u64>,
    /// Seconds a pod gets to stop; `None`: what the pod says; 0: gone at once.
    pub grace_seconds: Option<u32>,
    /// What happens to what it owns.
    pub propagation: Propagation,
    /// As in [`WriteOptions`].
    pub fence: Option<Term>,
    /// Check everything, delete nothing.
    pub dry_run: bool,
}

/// Which state a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// As fresh as the list's consistency asks for.
    #[default]
    Newest,
    /// This revision or a newer one.
    NotOlderThan(u64),
    /// This revision.
    Exactly(u64),
}

/// Options of a list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only objects with these labels.
    pub labels: Selector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
    /// At most this many; 0 means all.
    pub limit: usize,
    /// From [`crate::List::continue_token`]: goes on at the revision of the first page.
    pub continue_token: Option<String>,
    /// Which state.
    pub at: At,
}

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7396
    Merge,
    /// RFC 6902
    Json,
    /// Kubernetes' merge that knows the keys of lists.
    Strategic,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subresource {
    /// Everything but the status.
    #[default]
    Main,
    /// The status only.
    Status,
    /// A pod's containers for debugging, which are only added.
    EphemeralContainers,
    /// A namespace's finalizers.
    Finalize,
    /// A pod's node, and its status with the condition that says so.
    #[doc(hidden)]
    Bind,
}

/// One write of [`crate::Registry::write_batch`].
pub enum Write {
    /// Creates an object.
    Create(Value),
    /// Replaces an object (not its status).
    Update(Value),
    /// Replaces an object's status.
    UpdateStatus(Value),
    /// Replaces the status of the pod with this uid, but for the conditions that are not its
    /// agent's.
    PodStatus {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// Only when it has this uid; empty: whichever it is.
        uid: String,
        /// The JSON text of the new status.
        status: Bytes,
    },
    /// Binds a pod to a node, when it is bound nowhere and is not being deleted.
    Bind {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// Only when it has this uid; empty: whichever it is.
        uid: String,
        /// Only when it is at this revision.
        revision: Option<u64>,
        /// The node.
        node: String,
    },
    /// Deletes an object. The fence of the options is that of the batch.
    Delete {
        /// The kind.
        kind: &'static Kind,
        /// "" for kinds without namespaces.
        namespace: String,
        /// The name.
        name: String,
        /// Preconditions, grace and propagation.
        options: DeleteOptions,
    },
}
