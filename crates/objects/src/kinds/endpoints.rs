//! Endpoints.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints};

use crate::error::Errors;
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{template, time};

/// Endpoints.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[Column::new("NAME"), Column::new("ENDPOINTS"), Column::new("AGE")],
    ops: Ops::of::<Endpoints>(),
};

impl Typed for Endpoints {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let ports = self.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut());
        for port in ports.flatten() {
            template::default_text(&mut port.protocol, "TCP");
        }
    }

    fn validate(&self, errors: &mut Errors) {
        for (index, subset) in self.subsets.iter().flatten().enumerate() {
            validate_subset(subset, &format!("subsets[{index}]"), errors);
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        const SHOWN: usize = 3;
        let mut shown = Vec::new();
        for subset in self.subsets.iter().flatten() {
            let addresses = subset.addresses.as_deref().unwrap_or_default();
            let ports = subset.ports.as_deref().unwrap_or_default();
            for address in addresses {
                if ports.is_empty() {
                    shown.push(address.ip.clone());
                }
                shown.extend(ports.iter().map(|port| format!("{}:{}", address.ip, port.port)));
            }
        }
        let text = match shown.len() {
            0 => "<none>".to_owned(),
            count if count > SHOWN => {
                format!("{} + {} more...", shown[..SHOWN].join(","), count - SHOWN)
            }
            _ => shown.join(","),
        };
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            text,
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn validate_subset(subset: &EndpointSubset, path: &str, errors: &mut Errors) {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let others = subset.not_ready_addresses.as_deref().unwrap_or_default();
    if ready.is_empty() && others.is_empty() {
        errors.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, list) in [("addresses", ready), ("notReadyAddresses", others)] {
        for (index, address) in list.iter().enumerate() {
            if address.ip.parse::<IpAddr>().is_err() {
                let path = format!("{path}.{field}[{index}].ip");
                let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.invalid(path, &address.ip, text);
            }
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if ports.len() > 1 && port.name.as_deref().unwrap_or_default().is_empty() {
            errors.required(format!("{path}.name"), "");
        }
        template::validate_port(port.port, format!("{path}.port"), errors);
    }
}
