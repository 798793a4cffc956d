//! EndpointSlice.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::time;

/// EndpointSlice.
pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("ADDRESSTYPE"),
        Column::new("PORTS"),
        Column::new("ENDPOINTS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<EndpointSlice>(),
};

impl Typed for EndpointSlice {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
        if self.address_type.is_empty() {
            errors.required("addressType", "");
        } else {
            errors.one_of("addressType", Some(&self.address_type), &TYPES);
        }
        for (index, endpoint) in self.endpoints.iter().flatten().enumerate() {
            if endpoint.addresses.is_empty() {
                errors.required(format!("endpoints[{index}].addresses"), "must contain at least 1 address");
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable("addressType", &self.address_type, &old.address_type);
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let ports = self.ports.iter().flatten();
        let ports = ports.map(|port| port.port.map_or_else(|| "*".into(), |p| p.to_string()));
        let addresses = self.endpoints.iter().flatten().flat_map(|one| one.addresses.iter());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            self.address_type.clone(),
            shortened(ports.collect()),
            shortened(addresses.cloned().collect()),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

/// At most three, and how many more.
fn shortened(list: Vec<String>) -> String {
    const SHOWN: usize = 3;
    match list.len() {
        0 => "<unset>".into(),
        count if count > SHOWN => {
            format!("{} + {} more...", list[..SHOWN].join(","), count - SHOWN)
        }
        _ => list.join(","),
    }
}
