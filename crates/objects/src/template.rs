//! Defaults and checks of pod specs, wherever they occur.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::{Errors, FieldError};
use crate::quantity::Quantity;
use crate::{Selector, names};

/// Sets `field` when it is unset or empty.
pub(crate) fn default_text(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Kubernetes' defaults of a pod spec.
pub(crate) fn default_spec(spec: &mut PodSpec) {
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    spec.enable_service_links.get_or_insert(true);
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        default_container(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
}

/// Kubernetes' defaults of a pod template.
pub(crate) fn default_template(template: &mut PodTemplateSpec) {
    if let Some(pod) = &mut template.spec {
        default_spec(pod);
    }
}

fn default_container(container: &mut Container) {
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    let image = container.image.as_deref().unwrap_or_default();
    // "latest" moves, so it is asked for each time; anything else that is here is good enough.
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    default_text(&mut container.image_pull_policy, policy);
    for port in container.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    for probe in probes.into_iter().flatten() {
        default_probe(probe);
    }
    if let Some(resources) = &mut container.resources
        && let Some(limits) = &resources.limits
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    container.resources.get_or_insert_default();
    for variable in container.env.iter_mut().flatten() {
        if let Some(source) = &mut variable.value_from
            && let Some(field) = &mut source.field_ref
        {
            default_text(&mut field.api_version, "v1");
        }
    }
}

fn default_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(http) = &mut probe.http_get {
        default_text(&mut http.path, "/");
        default_text(&mut http.scheme, "HTTP");
    }
}

fn default_volume(volume: &mut Volume) {
    const MODE: i32 = 0o644;
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
}

/// Is it the moving tag: none or `latest`, without a digest?
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Checks a pod spec at `path`.
pub(crate) fn validate_spec(spec: &PodSpec, path: &str, errors: &mut Errors) {
    validate_spec_with(spec, path, &BTreeSet::new(), errors);
}

/// [`validate_spec`], where containers may mount the volumes `extra` too.
fn validate_spec_with(spec: &PodSpec, path: &str, extra: &BTreeSet<String>, errors: &mut Errors) {
    let mut volumes = validate_volumes(spec.volumes.as_deref().unwrap_or_default(), path, errors);
    volumes.extend(extra.iter().cloned());
    if spec.containers.is_empty() {
        errors.required(format!("{path}.containers"), "");
    }
    let mut names = BTreeSet::new();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (field, list) in [("initContainers", init), ("containers", &spec.containers)] {
        for (index, container) in list.iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            if !container.name.is_empty() && !names.insert(container.name.clone()) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &container.name));
            }
            validate_container(container, &path, &volumes, errors);
        }
    }
    errors.one_of(
        format!("{path}.restartPolicy"),
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
    );
    errors.one_of(
        format!("{path}.dnsPolicy"),
        spec.dns_policy.as_deref(),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    errors.non_negative(
        format!("{path}.terminationGracePeriodSeconds"),
        spec.termination_grace_period_seconds,
    );
    crate::meta::validate_labels(
        spec.node_selector.as_ref(),
        &format!("{path}.nodeSelector"),
        errors,
    );
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        let path = format!("{path}.tolerations[{index}]");
        errors.one_of(
            format!("{path}.operator"),
            toleration.operator.as_deref().filter(|operator| !operator.is_empty()),
            &["Equal", "Exists"],
        );
        errors.one_of(
            format!("{path}.effect"),
            toleration.effect.as_deref().filter(|effect| !effect.is_empty()),
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
        let key = toleration.key.as_deref().unwrap_or_default();
        if key.is_empty() && toleration.operator.as_deref() != Some("Exists") {
            let text = "operator must be Exists when `key` is empty, which means \"match all \
                        values and all keys\"";
            errors.invalid(format!("{path}.operator"), &toleration.operator, text);
        }
    }
}

fn validate_volumes(volumes: &[Volume], path: &str, errors: &mut Errors) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        label_name(&volume.name, &format!("{path}.name"), errors);
        if !volume.name.is_empty() && !seen.insert(volume.name.clone()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &volume.name));
        }
        if volume.host_path.as_ref().is_some_and(|source| source.path.is_empty()) {
            errors.required(format!("{path}.hostPath.path"), "");
        }
        if volume.config_map.as_ref().is_some_and(|source| source.name.is_empty()) {
            errors.required(format!("{path}.configMap.name"), "");
        }
        let claim = volume.persistent_volume_claim.as_ref();
        if claim.is_some_and(|source| source.claim_name.is_empty()) {
            errors.required(format!("{path}.persistentVolumeClaim.claimName"), "");
        }
        let named = volume.secret.as_ref();
        if named.is_some_and(|s| s.secret_name.as_deref().unwrap_or_default().is_empty()) {
            errors.required(format!("{path}.secret.secretName"), "");
        }
    }
    seen
}

pub(crate) fn label_name(name: &str, path: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else if let Err(message) = names::dns1123_label(name) {
        errors.invalid(path, name, message);
    }
}

fn validate_container(
    container: &Container,
    path: &str,
    volumes: &BTreeSet<String>,
    errors: &mut Errors,
) {
    label_name(&container.name, &format!("{path}.name"), errors);
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        errors.required(format!("{path}.image"), "");
    } else if image.trim() != image {
        let text = "must not have leading or trailing whitespace";
        errors.invalid(format!("{path}.image"), image, text);
    }
    errors.one_of(
        format!("{path}.imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    );
    validate_container_ports(container.ports.as_deref().unwrap_or_default(), path, errors);
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        if variable.name.is_empty() {
            errors.required(format!("{path}.name"), "");
        } else if let Err(message) = names::env_name(&variable.name) {
            errors.invalid(format!("{path}.name"), &variable.name, message);
        }
        let value = variable.value.as_deref().unwrap_or_default();
        if !value.is_empty() && variable.value_from.is_some() {
            let text = "may not be specified when `value` is not empty";
            errors.invalid(format!("{path}.valueFrom"), "", text);
        }
    }
    let mut mounts = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if mount.name.is_empty() {
            errors.required(format!("{path}.name"), "");
        } else if !volumes.contains(&mount.name) {
            errors.push(FieldError::not_found(format!("{path}.name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.required(format!("{path}.mountPath"), "");
        } else if !mounts.insert(&mount.mount_path) {
            let text = "must be unique";
            errors.invalid(format!("{path}.mountPath"), &mount.mount_path, text);
        }
    }
    if let Some(resources) = &container.resources {
        validate_resources(resources, &format!("{path}.resources"), errors);
    }
    for (field, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            validate_probe(probe, &format!("{path}.{field}"), errors);
        }
    }
}

/// A port number must be between 1 and 65535.
pub(crate) fn validate_port(port: i32, path: String, errors: &mut Errors) {
    if !(1..=65535).contains(&port) {
        errors.invalid(path, port, "must be between 1 and 65535, inclusive");
    }
}

fn validate_container_ports(ports: &[ContainerPort], path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if port.container_port == 0 {
            errors.required(format!("{path}.containerPort"), "");
        } else {
            validate_port(port.container_port, format!("{path}.containerPort"), errors);
        }
        if let Some(host) = port.host_port.filter(|port| *port != 0) {
            validate_port(host, format!("{path}.hostPort"), errors);
        }
        errors.one_of(
            format!("{path}.protocol"),
            port.protocol.as_deref(),
            &["TCP", "UDP", "SCTP"],
        );
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            if let Err(message) = names::port_name(name) {
                errors.invalid(format!("{path}.name"), name, message);
            } else if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
    }
}

fn validate_resources(resources: &ResourceRequirements, path: &str, errors: &mut Errors) {
    let empty = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    for (field, list) in [("limits", limits), ("requests", requests)] {
        for (name, quantity) in list {
            let path = format!("{path}.{field}.{name}");
            match Quantity::parse(&quantity.0) {
                Err(error) => errors.invalid(path, &quantity.0, error.to_string()),
                Ok(parsed) if parsed.is_negative() => {
                    errors.invalid(path, &quantity.0, "must be greater than or equal to 0");
                }
                Ok(parsed) if field == "requests" => {
                    let limit = limits.get(name).and_then(|limit| Quantity::parse(&limit.0).ok());
                    if let Some(limit) = limit.filter(|limit| parsed > *limit) {
                        let text = format!("must be less than or equal to {name} limit of {limit}");
                        errors.invalid(path, &quantity.0, text);
                    }
                }
                Ok(_) => {}
            }
        }
    }
}

fn validate_probe(probe: &Probe, path: &str, errors: &mut Errors) {
    let handlers = [
        probe.exec.is_some(),
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.grpc.is_some(),
    ];
    match handlers.into_iter().filter(|set| *set).count() {
        0 => errors.required(path, "must specify a handler type"),
        1 => {}
        _ => errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type")),
    }
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.non_negative(format!("{path}.{field}"), value.map(i64::from));
    }
}

/// Checks selector and template of a controller's spec: they must belong together.
pub(crate) fn validate_template(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    errors: &mut Errors,
) {
    validate_template_with(selector, template, &BTreeSet::new(), errors);
}

/// [`validate_template`], where containers may mount the volumes `extra` too.
pub(crate) fn validate_template_with(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    extra: &BTreeSet<String>,
    errors: &mut Errors,
) {
    validate_selector(selector, template, errors);
    validate_restartable(template, "spec.template", &["Always"], extra, errors);
}

/// Checks the selector at `spec.selector`, which must select the pods of the template.
pub(crate) fn validate_selector(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    errors: &mut Errors,
) {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let empty = |selector: &LabelSelector| {
        selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
    };
    crate::selector::validate(selector, "spec.selector", errors);
    if empty(selector) {
        errors.required("spec.selector", "");
    } else if let Ok(parsed) = Selector::from_label_selector(selector)
        && !parsed.matches_labels(labels)
    {
        let text = "`selector` does not match template `labels`";
        errors.invalid("spec.template.metadata.labels", labels, text);
    }
}

/// Checks a template at `path`, whose pods restart as one of `policies` says.
pub(crate) fn validate_pod_template(
    template: &PodTemplateSpec,
    path: &str,
    policies: &[&str],
    errors: &mut Errors,
) {
    validate_restartable(template, path, policies, &BTreeSet::new(), errors);
}

fn validate_restartable(
    template: &PodTemplateSpec,
    path: &str,
    policies: &[&str],
    extra: &BTreeSet<String>,
    errors: &mut Errors,
) {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    crate::meta::validate_labels(labels, &format!("{path}.metadata.labels"), errors);
    let Some(spec) = &template.spec else {
        return errors.required(format!("{path}.spec.containers"), "");
    };
    validate_spec_with(spec, &format!("{path}.spec"), extra, errors);
    let policy = spec.restart_policy.as_deref();
    errors.one_of(format!("{path}.spec.restartPolicy"), policy, policies);
}

/// A number or percentage that is not negative; its number, when it is valid.
pub(crate) fn validate_amount(
    value: Option<&IntOrString>,
    path: &str,
    errors: &mut Errors,
) -> Option<i32> {
    match value? {
        IntOrString::Int(number) => {
            errors.non_negative(path, i64::from(*number));
            Some(*number)
        }
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<u16>().ok());
            if percent.is_none() {
                let text_rule = "a valid percent string must be a numeric string followed by an \
                                 ending '%'";
                errors.invalid(path, text, text_rule);
            }
            percent.map(i32::from)
        }
    }
}

/// The columns CONTAINERS and IMAGES.
pub(crate) fn shown_containers(pod: Option<&PodSpec>) -> (String, String) {
    let containers = pod.map(|pod| pod.containers.as_slice()).unwrap_or_default();
    let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().filter_map(|one| one.image.as_deref()).collect();
    (names.join(","), images.join(","))
}
