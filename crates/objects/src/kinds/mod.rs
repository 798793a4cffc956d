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
    event => EVENT,
    config_map => CONFIG_MAP,
    secret => SECRET,
    replica_set => REPLICA_SET,
    deployment => DEPLOYMENT,
    endpoint_slice => ENDPOINT_SLICE,
}

/// All kinds that are served.
#[must_use]
pub fn kinds() -> &'static [&'static Kind] {
    ALL
}
