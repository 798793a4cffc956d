#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quorate_objects::kinds;
use quorate_registry::DeleteOptions;
use serde_json::json;

use super::{ApiAccess, subsets};
use crate::fake::{Cluster, options};
use crate::{Leader, LeaderOptions};

fn urls() -> Vec<String> {
    ["https://10.0.0.1:7001", "https://10.0.0.2:7001", "https://10.0.0.2:7002/", "https://host:1"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn masters_are_grouped_by_port() {
    let found: Vec<(i32, usize)> = subsets(&urls())
        .into_iter()
        .map(|one| (one.ports.unwrap()[0].port, one.addresses.unwrap().len()))
        .collect();
    assert_eq!(found, [(7001, 2), (7002, 1)]);
}

#[tokio::test]
async fn pods_find_the_masters_and_their_authority() {
    let cluster = Cluster::new(0).await;
    let api = ApiAccess { authority: "PEM".into(), urls: Arc::new(urls) };
    let options = LeaderOptions { api: Some(api), ..options() };
    let leader = Leader::start(cluster.registry.clone(), cluster.term(), options);
    let cache = cluster.registry.cache();
    let until = async |what: &str, is: &dyn Fn() -> bool| {
        for _ in 0..1000 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    };
    let data = |namespace: &str| {
        let object = cache.get(&kinds::CONFIG_MAP, namespace, "kube-root-ca.crt")?;
        object.typed::<ConfigMap>().unwrap().data.as_ref()?.get("ca.crt").cloned()
    };
    until("certificates", &|| {
        ["default", "kube-system"].iter().all(|ns| data(ns).as_deref() == Some("PEM"))
    })
    .await;
    until("the service", &|| {
        let service = cache.get(&kinds::SERVICE, "default", "kubernetes");
        let service = service.and_then(|object| object.typed::<Service>().ok());
        let address = service.and_then(|service| service.spec.clone()?.cluster_ip);
        address.as_deref() == Some("10.208.0.1")
    })
    .await;
    until("slices", &|| {
        let slices = cache.list(&kinds::ENDPOINT_SLICE, Some("default"));
        let slices = slices.iter().filter_map(|one| one.typed::<EndpointSlice>().ok());
        let ports = slices.filter_map(|one| one.ports.as_ref()?.first()?.port);
        let mut ports: Vec<i32> = ports.collect();
        ports.sort_unstable();
        ports == [7001, 7002]
    })
    .await;
    // What users break is put right.
    let now = DeleteOptions::default();
    cluster.registry.delete(&kinds::CONFIG_MAP, "default", "kube-root-ca.crt", &now).await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}});
    cluster.create(namespace).await;
    until("certificates", &|| {
        ["default", "late"].iter().all(|ns| data(ns).as_deref() == Some("PEM"))
    })
    .await;
    leader.stop().await.unwrap();
}
