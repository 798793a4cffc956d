//! Deployments, replica sets, services.

use quorate_client::{Client, ListOptions};
use serde_json::Value;

use super::writer::Writer;
use super::{conditions, metadata};
use crate::context::list_all;
use crate::error::Result;
use crate::json::{int, list, pairs, plain, text};
use crate::resource;

pub async fn deployment(client: &Client, value: &Value, w: &mut Writer) -> Result<()> {
    w.field("CreationTimestamp", text(value, "/metadata/creationTimestamp"));
    metadata(value, w);
    w.field("Selector", &pairs(value, "/spec/selector/matchLabels", "=").join(","));
    let count = |name: &str| int(value, &format!("/status/{name}"));
    w.field(
        "Replicas",
        &format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            int(value, "/spec/replicas"),
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas"),
        ),
    );
    w.field("StrategyType", text(value, "/spec/strategy/type"));
    w.field("MinReadySeconds", &int(value, "/spec/minReadySeconds").to_string());
    if let Some(rolling) = value.pointer("/spec/strategy/rollingUpdate") {
        let amount = |name| rolling.get(name).map(plain).unwrap_or_default();
        let (down, surge) = (amount("maxUnavailable"), amount("maxSurge"));
        w.field("RollingUpdateStrategy", &format!("{down} max unavailable, {surge} max surge"));
    }
    template(value, w);
    conditions(value, w);
    let options = ListOptions {
        namespace: text(value, "/metadata/namespace").to_owned(),
        labels: pairs(value, "/spec/selector/matchLabels", "=").join(","),
        ..ListOptions::default()
    };
    let uid = text(value, "/metadata/uid");
    let all = list_all(client, resource::by_name("replicasets")?, options).await?.1;
    let owned = |set: &&quorate_client::Object| {
        list(&set.value, "/metadata/ownerReferences").iter().any(|o| text(o, "/uid") == uid)
    };
    let sets = all.iter().filter(owned).filter(|set| int(&set.value, "/spec/replicas") > 0);
    let line = |set: &quorate_client::Object| {
        let (have, want) = (int(&set.value, "/status/replicas"), int(&set.value, "/spec/replicas"));
        format!("{} ({have}/{want} replicas created)", set.name)
    };
    w.list("ReplicaSets", &sets.map(line).collect::<Vec<_>>());
    Ok(())
}

pub fn replica_set(value: &Value, w: &mut Writer) {
    metadata(value, w);
    w.field("Selector", &pairs(value, "/spec/selector/matchLabels", "=").join(","));
    for owner in list(value, "/metadata/ownerReferences") {
        w.field("Controlled By", &format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    w.field(
        "Replicas",
        &format!(
            "{} current / {} desired / {} ready",
            int(value, "/status/replicas"),
            int(value, "/spec/replicas"),
            int(value, "/status/readyReplicas"),
        ),
    );
    template(value, w);
    conditions(value, w);
}

fn template(value: &Value, w: &mut Writer) {
    w.section("Pod Template", |w| {
        w.map("Labels", value.pointer("/spec/template/metadata/labels"));
        for container in list(value, "/spec/template/spec/containers") {
            w.section(text(container, "/name"), |w| {
                w.field("Image", text(container, "/image"));
                let ports = list(container, "/ports").iter();
                let ports = ports.map(|p| int(p, "/containerPort").to_string());
                w.field("Ports", &ports.collect::<Vec<_>>().join(", "));
                for name in ["command", "args", "resources", "readinessProbe", "livenessProbe"] {
                    if let Some(field) = container.get(name) {
                        w.value(name, field);
                    }
                }
            });
        }
    });
}

pub async fn service(client: &Client, value: &Value, w: &mut Writer) -> Result<()> {
    metadata(value, w);
    w.field("Selector", &pairs(value, "/spec/selector", "=").join(","));
    w.field("Type", text(value, "/spec/type"));
    w.field("IP", text(value, "/spec/clusterIP"));
    w.field("Session Affinity", text(value, "/spec/sessionAffinity"));
    let options = ListOptions {
        namespace: text(value, "/metadata/namespace").to_owned(),
        labels: format!("kubernetes.io/service-name={}", text(value, "/metadata/name")),
        ..ListOptions::default()
    };
    let slices = list_all(client, resource::by_name("endpointslices")?, options).await?.1;
    for port in list(value, "/spec/ports") {
        let name = text(port, "/name");
        let shown = if name.is_empty() { "<unset>" } else { name };
        let protocol = text(port, "/protocol");
        w.field("Port", &format!("{shown}  {}/{protocol}", int(port, "/port")));
        w.field("TargetPort", &port.get("targetPort").map(plain).unwrap_or_default());
        if let Some(node_port) = port.get("nodePort") {
            w.field("NodePort", &format!("{shown}  {node_port}/{protocol}"));
        }
        let addresses: Vec<String> =
            slices.iter().flat_map(|slice| endpoints(&slice.value, name)).collect();
        w.field("Endpoints", &addresses.join(","));
    }
    Ok(())
}

/// `ADDRESS:PORT` of the ready endpoints for the port of this name.
fn endpoints(slice: &Value, name: &str) -> Vec<String> {
    let port = list(slice, "/ports").iter().find(|p| text(p, "/name") == name);
    let Some(port) = port.map(|p| int(p, "/port")) else { return Vec::new() };
    list(slice, "/endpoints")
        .iter()
        .filter(|e| e.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false))
        .flat_map(|e| list(e, "/addresses"))
        .map(|address| format!("{}:{port}", plain(address)))
        .collect()
}
