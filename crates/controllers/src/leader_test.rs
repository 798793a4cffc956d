#![allow(clippy::unwrap_used)]

use quorate_objects::kinds;
use serde_json::json;

use super::*;
use crate::fake::{Cluster, deployment, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_and_is_scaled() {
    let cluster = Cluster::new(2).await;
    let leader = Leader::start(cluster.registry.clone(), cluster.term(), options());
    cluster.create(deployment("web", 4, "a")).await;
    cluster.until("four pods are ready", |c| c.ready() == 4).await;
    let on_n1 = cluster
        .active()
        .iter()
        .filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some("n1"))
        .count();
    assert_eq!(on_n1, 2, "they are spread");
    cluster.scale("web", 1).await;
    cluster.until("one is left", |c| c.registry.cache().list(&kinds::POD, None).len() == 1).await;
    cluster
        .until("the status says so", |c| {
            let web = c.get(&kinds::DEPLOYMENT, "web").unwrap();
            web["status"]["availableReplicas"] == json!(1) && web["status"]["replicas"] == json!(1)
        })
        .await;
    leader.stop().await.unwrap();
}
