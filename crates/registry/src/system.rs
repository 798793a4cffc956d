//! Objects that every cluster has.

use quorate_store::Term;
use serde_json::json;

use crate::error::RegistryError;
use crate::options::WriteOptions;
use crate::registry::Registry;

/// Namespaces that are always there.
pub(crate) const SYSTEM_NAMESPACES: [&str; 2] = ["default", "kube-system"];

impl Registry {
    /// Creates the namespaces `default` and `kube-system` when they are missing. A new leader
    /// calls it.
    ///
    /// # Errors
    /// Those of [`Registry::create`].
    pub async fn ensure_system_objects(&self, fence: Option<Term>) -> Result<(), RegistryError> {
        let options = WriteOptions { fence, ..WriteOptions::default() };
        for name in SYSTEM_NAMESPACES {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            match self.create(namespace, &options).await {
                Ok(_) | Err(RegistryError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
