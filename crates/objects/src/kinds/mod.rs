//! The table of kinds. A new kind is a file here and a line in this one.

use crate::kind::Kind;

macro_rules! kinds {
    ($($module:ident => $name:ident),* $(,)?) => {
        $(mod $module;)*
        $(pub use $module::KIND as $name;)*
        static ALL: &[&Kind] = &[$(&$name),*];
    };
}

// In the order in which `get all` and dumps show them.
kinds! {
    namespace => NAMESPACE,
    node => NODE,
    pod => POD,
    service => SERVICE,
    daemon_set => DAEMON_SET,
    event => EVENT,
    config_map => CONFIG_MAP,
    secret => SECRET,
    replica_set => REPLICA_SET,
    deployment => DEPLOYMENT,
    stateful_set => STATEFUL_SET,
    horizontal_pod_autoscaler => HORIZONTAL_POD_AUTOSCALER,
    cron_job => CRON_JOB,
    job => JOB,
    controller_revision => CONTROLLER_REVISION,
    pod_disruption_budget => POD_DISRUPTION_BUDGET,
    service_account => SERVICE_ACCOUNT,
    resource_quota => RESOURCE_QUOTA,
    limit_range => LIMIT_RANGE,
    persistent_volume_claim => PERSISTENT_VOLUME_CLAIM,
    persistent_volume => PERSISTENT_VOLUME,
    storage_class => STORAGE_CLASS,
    priority_class => PRIORITY_CLASS,
    endpoints => ENDPOINTS,
    endpoint_slice => ENDPOINT_SLICE,
    replication_controller => REPLICATION_CONTROLLER,
    pod_template => POD_TEMPLATE,
    ingress => INGRESS,
    ingress_class => INGRESS_CLASS,
    network_policy => NETWORK_POLICY,
    role => ROLE,
    role_binding => ROLE_BINDING,
    cluster_role => CLUSTER_ROLE,
    cluster_role_binding => CLUSTER_ROLE_BINDING,
    lease => LEASE,
    custom_resource_definition => CUSTOM_RESOURCE_DEFINITION,
}

pub use custom_resource_definition::CLEANUP_FINALIZER;

/// All kinds that are served now: those that are built in, and the custom ones.
#[must_use]
pub fn kinds() -> Vec<&'static Kind> {
    ALL.iter().copied().chain(crate::custom::served()).collect()
}

/// The kinds that are built in.
#[must_use]
pub fn builtin() -> &'static [&'static Kind] {
    ALL
}

/// The first kind for which this is true.
pub fn find(fits: impl Fn(&Kind) -> bool) -> Option<&'static Kind> {
    ALL.iter().copied().find(|kind| fits(kind)).or_else(|| crate::custom::find(fits))
}
