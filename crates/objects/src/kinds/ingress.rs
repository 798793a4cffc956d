//! Ingress: kept and validated for controllers that users bring; nothing here routes by it.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, Typed};
use crate::{names, template, time};

/// Ingress.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    categories: &[],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("CLASS"),
        Column::new("HOSTS"),
        Column::new("ADDRESS"),
        Column::new("PORTS"),
        Column::new("AGE"),
    ],
    ops: Ops::of::<Ingress>(),
};

impl Typed for Ingress {
    fn kind() -> &'static Kind {
        &KIND
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let rules = spec.rules.as_deref().unwrap_or_default();
        if rules.is_empty() && spec.default_backend.is_none() {
            let text = "either `defaultBackend` or `rules` must be specified";
            errors.invalid("spec", serde_json::json!({}), text);
        }
        if let Some(class) = spec.ingress_class_name.as_deref()
            && let Err(message) = names::dns1123_subdomain(class)
        {
            errors.invalid("spec.ingressClassName", class, message);
        }
        if let Some(backend) = &spec.default_backend {
            validate_backend(backend, "spec.defaultBackend", errors);
        }
        for (index, tls) in spec.tls.iter().flatten().enumerate() {
            for (host_index, host) in tls.hosts.iter().flatten().enumerate() {
                let path = format!("spec.tls[{index}].hosts[{host_index}]");
                validate_host(host, &path, errors);
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            if let Some(host) = rule.host.as_deref().filter(|host| !host.is_empty()) {
                validate_host(host, &format!("spec.rules[{index}].host"), errors);
            }
            let Some(http) = &rule.http else { continue };
            let path = format!("spec.rules[{index}].http.paths");
            if http.paths.is_empty() {
                errors.required(&path, "");
            }
            for (path_index, one) in http.paths.iter().enumerate() {
                validate_path(one, &format!("{path}[{path_index}]"), errors);
            }
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let rules = spec.rules.unwrap_or_default();
        let hosts = rules.into_iter().filter_map(|rule| rule.host).filter(|host| !host.is_empty());
        let balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let points = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
        let addresses: Vec<String> =
            points.filter_map(|point| point.ip.clone().or_else(|| point.hostname.clone())).collect();
        let tls = spec.tls.is_some_and(|tls| !tls.is_empty());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            spec.ingress_class_name.unwrap_or_else(|| "<none>".into()),
            shown_hosts(hosts.collect()),
            addresses.join(","),
            if tls { "80, 443".into() } else { "80".into() },
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

/// As kubectl: at most three, and how many more.
fn shown_hosts(hosts: Vec<String>) -> String {
    match hosts.len() {
        0 => "*".into(),
        1..=3 => hosts.join(","),
        n => format!("{} + {} more...", hosts[..3].join(","), n - 3),
    }
}

fn validate_host(host: &str, path: &str, errors: &mut Errors) {
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
        return;
    }
    if let Err(message) = names::dns1123_subdomain(host.strip_prefix("*.").unwrap_or(host)) {
        errors.invalid(path, host, message);
    }
}

fn validate_path(one: &HTTPIngressPath, path: &str, errors: &mut Errors) {
    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
    let text = one.path.as_deref().unwrap_or_default();
    if one.path_type.is_empty() {
        errors.required(format!("{path}.pathType"), "pathType must be specified");
    } else {
        errors.one_of(format!("{path}.pathType"), Some(&one.path_type), &kinds);
    }
    let strict = one.path_type != "ImplementationSpecific";
    if (strict || !text.is_empty()) && !text.starts_with('/') {
        errors.invalid(format!("{path}.path"), text, "must be an absolute path");
    } else if strict {
        for part in ["//", "/./", "/../", "%2f", "%2F"] {
            if text.contains(part) {
                let message = format!("must not contain '{part}'");
                errors.invalid(format!("{path}.path"), text, message);
            }
        }
    }
    validate_backend(&one.backend, &format!("{path}.backend"), errors);
}

fn validate_backend(backend: &IngressBackend, path: &str, errors: &mut Errors) {
    let service = match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
            return;
        }
        (None, None) => {
            errors.required(path, "a service or a resource backend is required");
            return;
        }
        (None, Some(_)) => return,
        (Some(service), None) => service,
    };
    if service.name.is_empty() {
        errors.required(format!("{path}.service.name"), "");
    } else if let Err(message) = names::dns1035_label(&service.name) {
        errors.invalid(format!("{path}.service.name"), &service.name, message);
    }
    let port = service.port.clone().unwrap_or_default();
    let name = port.name.as_deref().unwrap_or_default();
    match (name, port.number.unwrap_or(0)) {
        ("", 0) => errors.required(format!("{path}.service.port"), "port name or number is required"),
        ("", number) => {
            template::validate_port(number, format!("{path}.service.port.number"), errors);
        }
        (name, 0) => {
            if let Err(message) = names::port_name(name) {
                errors.invalid(format!("{path}.service.port.name"), name, message);
            }
        }
        _ => errors.push(FieldError::invalid(
            format!("{path}.service.port"),
            "",
            "cannot set both port name & port number",
        )),
    }
}

#[cfg(test)]
#[path = "ingress_test.rs"]
mod tests;
