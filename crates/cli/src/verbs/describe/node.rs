//! Nodes.

use quorate_client::{Client, ListOptions};
use serde_json::Value;

use super::writer::Writer;
use super::{conditions, metadata, strings};
use crate::context::list_all;
use crate::error::Result;
use crate::json::{list, pairs, text};
use crate::resource;

pub async fn describe(client: &Client, node: &Value, w: &mut Writer) -> Result<()> {
    metadata(node, w);
    w.field("CreationTimestamp", text(node, "/metadata/creationTimestamp"));
    let taint = |t: &Value| {
        format!("{}={}:{}", text(t, "/key"), text(t, "/value"), text(t, "/effect"))
            .replace("=:", ":")
    };
    w.list("Taints", &list(node, "/spec/taints").iter().map(taint).collect::<Vec<_>>());
    let unschedulable = node["spec"]["unschedulable"].as_bool() == Some(true);
    w.field("Unschedulable", if unschedulable { "true" } else { "false" });
    conditions(node, w);
    w.section("Addresses", |w| {
        for address in list(node, "/status/addresses") {
            w.field(text(address, "/type"), text(address, "/address"));
        }
    });
    for (key, pointer) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")]
    {
        w.section(key, |w| {
            for pair in pairs(node, pointer, "\t") {
                let (name, amount) = pair.split_once('\t').unwrap_or((&pair, ""));
                w.field(name, amount);
            }
        });
    }
    w.section("System Info", |w| {
        for pair in pairs(node, "/status/nodeInfo", "\t") {
            let (name, value) = pair.split_once('\t').unwrap_or((&pair, ""));
            w.optional(name, value);
        }
    });
    w.field("PodCIDR", text(node, "/spec/podCIDR"));
    pods(client, node, w).await
}

async fn pods(client: &Client, node: &Value, w: &mut Writer) -> Result<()> {
    let fields = format!("spec.nodeName={}", text(node, "/metadata/name"));
    let options = ListOptions { fields, ..ListOptions::default() };
    let all = list_all(client, resource::by_name("pods")?, options).await?.1;
    let gone = |pod: &Value| ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    let pods: Vec<_> = all.iter().filter(|pod| !gone(&pod.value)).collect();
    w.line(&format!("Non-terminated Pods: ({} in total)", pods.len()));
    let mut rows = vec![strings(&["Namespace", "Name", "CPU Requests", "Memory Requests", "Age"])];
    for pod in pods {
        let requests = |name: &str| {
            let of = |c: &Value| text(c, &format!("/resources/requests/{name}")).to_owned();
            let all: Vec<String> = list(&pod.value, "/spec/containers").iter().map(of).collect();
            let given: Vec<&str> =
                all.iter().map(String::as_str).filter(|amount| !amount.is_empty()).collect();
            if given.is_empty() { "0".to_owned() } else { given.join("+") }
        };
        rows.push(strings(&[
            &pod.namespace,
            &pod.name,
            &requests("cpu"),
            &requests("memory"),
            &w.age(text(&pod.value, "/metadata/creationTimestamp")),
        ]));
    }
    w.table(&rows);
    Ok(())
}
