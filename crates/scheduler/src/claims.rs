//! Tells claims on which node their volume is to be made, before their pod is bound there.

use quorate_objects::storage::SELECTED_NODE;
use quorate_objects::{Kind, kinds};
use quorate_registry::{Code, Registry, RegistryError, WriteOptions};
use quorate_store::Term;

use crate::bind::Attempt;

/// Attempts to write one claim that others change as well.
const TRIES: usize = 4;

/// Writes the node to the claims of the pod that have none.
pub(crate) async fn select(
    registry: &Registry,
    term: Term,
    attempt: &Attempt,
    node: &str,
) -> Result<(), RegistryError> {
    for name in &attempt.claims {
        select_one(registry, term, &attempt.key.namespace, name, node).await?;
    }
    Ok(())
}

async fn select_one(
    registry: &Registry,
    term: Term,
    namespace: &str,
    name: &str,
    node: &str,
) -> Result<(), RegistryError> {
    let kind = &kinds::PERSISTENT_VOLUME_CLAIM;
    let mut last = None;
    for _ in 0..TRIES {
        let found = registry.cache().get(kind, namespace, name);
        let Some(claim) = found else {
            // Not "not found": that would be the pod's.
            let text = format!("persistentvolumeclaim \"{name}\" is gone");
            return Err(RegistryError::Conflict {
                resource: kind.resource(),
                name: name.to_owned(),
                message: text,
            });
        };
        let mut value = claim.value();
        value["metadata"]["annotations"][SELECTED_NODE] = node.into();
        let options = WriteOptions { revision: Some(claim.revision), ..WriteOptions::fenced(term) };
        match registry.update(value, &options).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Code::Conflict => {
                let _ = registry.cache().wait(claim.revision + 1, RETRY).await;
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| RegistryError::Timeout("a claim could not be written".into())))
}

/// Time for the cache to see a change that made a write fail.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// The kinds besides pods that the scheduler follows; nodes last.
pub(crate) fn followed() -> [&'static Kind; 7] {
    [
        &kinds::NAMESPACE,
        &kinds::PRIORITY_CLASS,
        &kinds::STORAGE_CLASS,
        &kinds::PERSISTENT_VOLUME,
        &kinds::PERSISTENT_VOLUME_CLAIM,
        &kinds::POD_DISRUPTION_BUDGET,
        &kinds::NODE,
    ]
}
