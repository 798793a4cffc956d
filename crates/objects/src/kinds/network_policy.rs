//! NetworkPolicy: kept and validated; whether it is enforced is the network's business.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{Selector, names, template, time};

/// NetworkPolicy.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    categories: &[],
    namespaced: true,
    has_status: false,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("POD-SELECTOR"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<NetworkPolicy>(),
};

impl Typed for NetworkPolicy {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        let inward = spec.ingress.iter_mut().flatten().map(|rule| &mut rule.ports);
        let outward = spec.egress.iter_mut().flatten().map(|rule| &mut rule.ports);
        for port in inward.chain(outward).flatten().flatten() {
            template::default_text(&mut port.protocol, "TCP");
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                types.push("Egress".into());
            }
            spec.policy_types = Some(types);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let everything = spec.pod_selector.unwrap_or_default();
        crate::selector::validate(&everything, "spec.podSelector", errors);
        let types = spec.policy_types.unwrap_or_default();
        if types.len() > 2 {
            errors.invalid("spec.policyTypes", &types, "may not specify more than two policyTypes");
        }
        for (index, one) in types.iter().enumerate() {
            let path = format!("spec.policyTypes[{index}]");
            errors.one_of(path, Some(one), &["Egress", "Ingress"]);
        }
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = format!("spec.ingress[{index}]");
            validate_rule(rule.ports.as_deref(), rule.from.as_deref(), &path, "from", errors);
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = format!("spec.egress[{index}]");
            validate_rule(rule.ports.as_deref(), rule.to.as_deref(), &path, "to", errors);
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let selector = self.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        let selector = selector.and_then(|selector| Selector::from_label_selector(selector).ok());
        let shown = selector.filter(|selector| !selector.is_everything());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            shown.map_or_else(|| "<none>".into(), |selector| selector.to_string()),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn validate_rule(
    ports: Option<&[NetworkPolicyPort]>,
    peers: Option<&[NetworkPolicyPeer]>,
    path: &str,
    peers_field: &str,
    errors: &mut Errors,
) {
    for (index, port) in ports.into_iter().flatten().enumerate() {
        validate_port(port, &format!("{path}.ports[{index}]"), errors);
    }
    for (index, peer) in peers.into_iter().flatten().enumerate() {
        validate_peer(peer, &format!("{path}.{peers_field}[{index}]"), errors);
    }
}

fn validate_port(port: &NetworkPolicyPort, path: &str, errors: &mut Errors) {
    errors.one_of(format!("{path}.protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            template::validate_port(*number, format!("{path}.port"), errors);
            if let Some(end) = end {
                template::validate_port(end, format!("{path}.endPort"), errors);
                if end < *number {
                    let text = "must be greater than or equal to `port`";
                    errors.invalid(format!("{path}.endPort"), end, text);
                }
            }
        }
        (Some(IntOrString::String(name)), None) => {
            if let Err(message) = names::port_name(name) {
                errors.invalid(format!("{path}.port"), name, message);
            }
        }
        (Some(IntOrString::String(_)), Some(end)) => {
            let text = "may not be specified when `port` is non-numeric";
            errors.invalid(format!("{path}.endPort"), end, text);
        }
        (None, Some(end)) => {
            let text = "may not be specified when `port` is not specified";
            errors.invalid(format!("{path}.endPort"), end, text);
        }
        (None, None) => {}
    }
}

fn validate_peer(peer: &NetworkPolicyPeer, path: &str, errors: &mut Errors) {
    let selectors = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
    let mut some = false;
    for (field, selector) in selectors {
        if let Some(selector) = selector {
            some = true;
            crate::selector::validate(selector, &format!("{path}.{field}"), errors);
        }
    }
    match &peer.ip_block {
        None if !some => errors.required(path, "must specify a peer"),
        None => {}
        Some(_) if some => errors.push(FieldError::forbidden(
            path,
            "may not specify both ipBlock and another peer",
        )),
        Some(block) => {
            let path = format!("{path}.ipBlock");
            let excepted = block.except.iter().flatten().enumerate();
            let excepted = excepted.map(|(index, cidr)| (format!("{path}.except[{index}]"), cidr));
            for (path, cidr) in [(format!("{path}.cidr"), &block.cidr)].into_iter().chain(excepted) {
                if cidr.is_empty() {
                    errors.required(path, "");
                } else if !is_cidr(cidr) {
                    let text = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                    errors.invalid(path, cidr, text);
                }
            }
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

#[cfg(test)]
#[path = "network_policy_test.rs"]
mod tests;
