//! Service.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, template, time};

/// Service.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &["spec.clusterIP", "spec.type"],
    columns: &[
        Column::new("NAME"),
        Column::new("TYPE"),
        Column::new("CLUSTER-IP"),
        Column::new("EXTERNAL-IP"),
        Column::new("PORT(S)"),
        Column::new("AGE"),
        Column::wide("SELECTOR"),
    ],
    ops: Ops::of::<Service>(),
};

impl Typed for Service {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        template::default_text(&mut spec.type_, "ClusterIP");
        template::default_text(&mut spec.session_affinity, "None");
        let external = spec.type_.as_deref() == Some("ExternalName");
        for port in spec.ports.iter_mut().flatten() {
            template::default_text(&mut port.protocol, "TCP");
            // Clients that send protobuf cannot leave it out.
            let unset = [IntOrString::Int(0), IntOrString::String(String::new())];
            if port.target_port.as_ref().is_none_or(|target| unset.contains(target)) {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if external {
            return;
        }
        template::default_text(&mut spec.internal_traffic_policy, "Cluster");
        spec.ip_families.get_or_insert_with(|| vec!["IPv4".into()]);
        template::default_text(&mut spec.ip_family_policy, "SingleStack");
        if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
            template::default_text(&mut spec.external_traffic_policy, "Cluster");
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else {
            errors.required("spec", "");
            return;
        };
        errors.one_of(
            "spec.type",
            spec.type_.as_deref(),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
        errors.one_of(
            "spec.sessionAffinity",
            spec.session_affinity.as_deref(),
            &["ClientIP", "None"],
        );
        crate::meta::validate_labels(spec.selector.as_ref(), "spec.selector", errors);
        let external = spec.type_.as_deref() == Some("ExternalName");
        let headless = spec.cluster_ip.as_deref() == Some("None");
        if external && spec.external_name.as_deref().unwrap_or_default().is_empty() {
            errors.required("spec.externalName", "");
        }
        if let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
            && address.parse::<Ipv4Addr>().is_err()
        {
            errors.invalid("spec.clusterIPs[0]", address, "must be a valid IP address, (e.g. 10.9.8.7)");
        }
        if headless && matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
            let text = "may not be set to 'None' for NodePort or LoadBalancer services";
            errors.invalid("spec.clusterIPs[0]", "None", text);
        }
        let ports = spec.ports.as_deref().unwrap_or_default();
        if ports.is_empty() && !external && !headless {
            errors.required("spec.ports", "");
        }
        validate_ports(ports, spec.type_.as_deref().unwrap_or_default(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let external = |service: &Self| {
            service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
        };
        if external(self) || external(old) {
            return;
        }
        let address = |service: &Self| {
            service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default()
        };
        if !address(old).is_empty() && address(self) != address(old) {
            errors.invalid("spec.clusterIPs[0]", address(self), "may not change once set");
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let none = || "<none>".to_owned();
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let ports: Vec<String> = spec.ports.iter().flatten().map(shown_port).collect();
        let selector: Vec<String> =
            spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        let or_none = |list: Vec<String>| if list.is_empty() { none() } else { list.join(",") };
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            spec.type_.clone().unwrap_or_default(),
            filled(spec.cluster_ip.clone()).unwrap_or_else(none),
            external_address(self),
            or_none(ports),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            or_none(selector),
        ]
    }
}

fn validate_ports(ports: &[ServicePort], service_type: &str, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.required(format!("{path}.name"), "");
        } else if !name.is_empty() {
            if let Err(message) = names::dns1123_label(name) {
                errors.invalid(format!("{path}.name"), name, message);
            } else if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        template::validate_port(port.port, format!("{path}.port"), errors);
        errors.one_of(
            format!("{path}.protocol"),
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
        if !numbers.insert((port.port, port.protocol.clone())) {
            errors.push(FieldError::duplicate(path.clone(), port));
        }
        match &port.target_port {
            Some(IntOrString::Int(number)) => {
                template::validate_port(*number, format!("{path}.targetPort"), errors);
            }
            Some(IntOrString::String(name)) => {
                if let Err(message) = names::port_name(name) {
                    errors.invalid(format!("{path}.targetPort"), name, message);
                }
            }
            None => {}
        }
        if service_type == "ClusterIP" && port.node_port.is_some_and(|port| port != 0) {
            errors.push(FieldError::forbidden(
                format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
    }
}

fn shown_port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port.filter(|port| *port != 0) {
        Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

fn external_address(service: &Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let mut addresses = spec.external_ips.unwrap_or_default();
    match spec.type_.as_deref() {
        Some("ExternalName") => return spec.external_name.unwrap_or_default(),
        Some("LoadBalancer") => {
            let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let ingress = status.iter().flat_map(|status| status.ingress.iter().flatten());
            addresses.extend(ingress.filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone())));
            if addresses.is_empty() {
                return "<pending>".into();
            }
        }
        _ => {}
    }
    if addresses.is_empty() { "<none>".into() } else { addresses.join(",") }
}
