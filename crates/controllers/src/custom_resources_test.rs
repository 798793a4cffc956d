#![allow(clippy::unwrap_used)]

use quorate_objects::Kind;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Cluster, options};
use crate::leader::Leader;

fn definition(group: &str, plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

fn condition(cluster: &Cluster, name: &str, type_: &str) -> Option<(String, String)> {
    let found = cluster.registry.cache().get(&CUSTOM_RESOURCE_DEFINITION, "", name)?;
    let typed = found.typed::<CustomResourceDefinition>().unwrap();
    let conditions = typed.status.as_ref()?.conditions.clone()?;
    let found = conditions.into_iter().find(|condition| condition.type_ == type_)?;
    Some((found.status, found.message.unwrap_or_default()))
}

fn is(cluster: &Cluster, name: &str, type_: &str, status: &str) -> bool {
    condition(cluster, name, type_).is_some_and(|(found, _)| found == status)
}

#[tokio::test]
async fn names_are_given_once_and_again_when_they_are_free() {
    let cluster = Cluster::new(0).await;
    let leader = Leader::start(cluster.registry.clone(), cluster.term(), options());
    let group = "names.example.com";
    cluster.create(definition(group, "boxes", "Box")).await;
    let (first, second) = ("boxes.names.example.com", "crates.names.example.com");
    cluster.until("established", |c| is(c, first, "Established", "True")).await;
    cluster.create(definition(group, "crates", "Box")).await;
    cluster.until("refused", |c| is(c, second, "NamesAccepted", "False")).await;
    let (_, message) = condition(&cluster, second, "NamesAccepted").unwrap();
    assert_eq!(message, "\"Box\" is already in use");
    assert!(is(&cluster, second, "Established", "False"));

    // With the definition go its objects, and then its names are free.
    let kind = Kind::by_gvk("names.example.com/v1", "Box").unwrap();
    cluster
        .create(json!({
            "apiVersion": "names.example.com/v1", "kind": "Box",
            "metadata": {"name": "a", "namespace": "default", "finalizers": ["example.com/wait"]},
        }))
        .await;
    let delete = DeleteOptions::default();
    cluster.registry.delete(&CUSTOM_RESOURCE_DEFINITION, "", first, &delete).await.unwrap();
    cluster
        .until("the object is being deleted", |c| {
            c.get(kind, "a").is_some_and(|a| a["metadata"]["deletionTimestamp"].is_string())
        })
        .await;
    assert!(condition(&cluster, first, "Established").is_some(), "it waits for its object");
    cluster.change(kind, "a", |value| value["metadata"]["finalizers"] = json!([])).await;
    cluster.until("the definition is gone", |c| condition(c, first, "Established").is_none()).await;
    cluster.until("accepted now", |c| is(c, second, "Established", "True")).await;
    leader.stop().await.unwrap();
}
