//! What `quorate up` and `quorate down` ask of a Docker Engine, with no agent running.

use quorate_objects::net::Ipv4Net;

use super::adapter::Adapter;
use super::spec::label;
use crate::runtime::RuntimeError;

/// A range of addresses that a network of the engine takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network's name.
    pub network: String,
    /// Its addresses.
    pub range: Ipv4Net,
}

/// The ranges of all networks of the engine.
///
/// # Errors
/// When the engine cannot be reached.
pub async fn subnets(docker: &str) -> Result<Vec<Subnet>, RuntimeError> {
    Adapter::connect(docker).await?.subnets().await
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Number of containers.
    pub containers: usize,
    /// Number of networks.
    pub networks: usize,
    /// Number of volumes.
    pub volumes: usize,
}

/// Removes all containers and networks with the cluster's label, and, when that is wanted, the
/// volumes of its claims with their data. Its agents must have ended.
///
/// # Errors
/// When the engine cannot be reached or refuses; what is gone by then stays gone.
pub async fn purge(docker: &str, cluster: &str, volumes: bool) -> Result<Purged, RuntimeError> {
    let adapter = Adapter::connect(docker).await?;
    let filter = vec![format!("{}={cluster}", label::CLUSTER)];
    let mut purged = Purged::default();
    for container in adapter.list(filter.clone()).await? {
        if let Some(id) = container.id {
            adapter.remove(&id).await?;
            purged.containers += 1;
        }
    }
    for network in adapter.networks(filter.clone()).await? {
        adapter.remove_network(&network).await?;
        purged.networks += 1;
    }
    let volumes = if volumes { adapter.volumes(filter).await? } else { Vec::new() };
    for volume in volumes {
        adapter.remove_volume(&volume).await?;
        purged.volumes += 1;
    }
    Ok(purged)
}
