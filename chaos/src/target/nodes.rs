//! Nodes and pods of a cluster under test.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_client::{DeleteOptions, ListOptions, PatchOptions, PatchType};
use quorate_objects::Typed;
use quorate_testkit::wait_for;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::{ELECTION, Target};

impl Target {
    /// Any process of nodes.
    ///
    /// # Errors
    /// When there is none.
    pub fn any_node(&self, random: &mut StdRng) -> Result<String> {
        self.nodes.choose(random).cloned().context("the cluster has no nodes")
    }

    /// Any node as an object: a process may have many.
    ///
    /// # Errors
    /// When there is none, or nobody answers.
    pub async fn any_node_object(&self, random: &mut StdRng) -> Result<String> {
        let nodes: Vec<Node> = self.observer()?.list_as(&ListOptions::default()).await?;
        let node = nodes.choose(random).context("the cluster has no nodes")?;
        node.metadata.name.clone().context("a node without a name")
    }

    /// Deletes any pod; says which.
    ///
    /// # Errors
    /// When there is none, or nobody answers.
    pub async fn delete_any_pod(&self, random: &mut StdRng) -> Result<String> {
        let client = self.observer()?;
        let pods: Vec<Pod> = client.list_as(&ListOptions::default()).await?;
        let pod = &pods.choose(random).context("there are no pods")?.metadata;
        let (namespace, name) = (pod.namespace.as_deref(), pod.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let options = DeleteOptions::default();
        client.delete(<Pod as Typed>::kind(), namespace, name, &options).await?;
        Ok(format!("{namespace}/{name}"))
    }

    /// Empties a node as an operator does, as far as that goes in a few seconds.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub async fn drain(&self, node: &str) -> Result<()> {
        let flags = ["--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout", "5s"];
        let args = [&["drain", node][..], &flags].concat();
        // A disruption budget may keep pods there: that is no failure of the fault.
        self.cluster().quorate(&args).await.map(drop)
    }

    /// Lets a node be used again.
    ///
    /// # Errors
    /// When nobody answers for some seconds.
    pub async fn uncordon(&self, node: &str) -> Result<()> {
        let patch = serde_json::json!({"spec": {"unschedulable": null}});
        let (kind, options) = (<Node as Typed>::kind(), PatchOptions::default());
        wait_for(&format!("{node} is uncordoned"), ELECTION, async || {
            let client = self.observer()?;
            client.patch(kind, "", node, PatchType::Merge, &patch, &options).await?;
            Ok(())
        })
        .await
        .map(drop)
    }
}
