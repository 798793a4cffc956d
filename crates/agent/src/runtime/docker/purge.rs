//! Removes everything that a cluster left on a Docker Engine, for `quorate down`.

use super::adapter::Adapter;
use super::spec::label;
use crate::runtime::RuntimeError;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Number of containers.
    pub containers: usize,
    /// Number of networks.
    pub networks: usize,
}

/// Removes all containers and networks with the cluster's label. Its agents must have ended.
///
/// # Errors
/// When the engine cannot be reached or refuses; what is gone by then stays gone.
pub async fn purge(docker: &str, cluster: &str) -> Result<Purged, RuntimeError> {
    let adapter = Adapter::connect(docker).await?;
    let filter = vec![format!("{}={cluster}", label::CLUSTER)];
    let mut purged = Purged::default();
    for container in adapter.list(filter.clone()).await? {
        if let Some(id) = container.id {
            adapter.remove(&id).await?;
            purged.containers += 1;
        }
    }
    for network in adapter.networks(filter).await? {
        adapter.remove_network(&network).await?;
        purged.networks += 1;
    }
    Ok(purged)
}
