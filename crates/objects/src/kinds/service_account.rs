//! ServiceAccount.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;

use crate::kind::{Column, Kind, Ops, Typed};
use crate::time;

/// ServiceAccount.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[Column::new("NAME"), Column::new("SECRETS"), Column::new("AGE")],
    ops: Ops::of::<ServiceAccount>(),
};

impl Typed for ServiceAccount {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            self.secrets.as_ref().map_or(0, Vec::len).to_string(),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
