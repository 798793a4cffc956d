//! Objects that every cluster has.

use quorate_objects::storage;
use quorate_store::Term;
use serde_json::json;

use crate::error::RegistryError;
use crate::options::WriteOptions;
use crate::registry::Registry;

/// Namespaces that are always there.
pub(crate) const SYSTEM_NAMESPACES: [&str; 2] = ["default", "kube-system"];

impl Registry {
    /// Creates the namespaces `default` and `kube-system` and the storage class `local` when they
    /// are missing. A new leader calls it.
    ///
    /// # Errors
    /// Those of [`Registry::create`].
    pub async fn ensure_system_objects(&self, fence: Option<Term>) -> Result<(), RegistryError> {
        let options = WriteOptions { fence, ..WriteOptions::default() };
        let namespace =
            |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        // Whoever wants another default takes the annotation away; the class stays.
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": storage::LOCAL_CLASS, "annotations": {(storage::DEFAULT_CLASS): "true"},
            },
            "provisioner": storage::PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        for object in SYSTEM_NAMESPACES.map(namespace).into_iter().chain([class]) {
            match self.create(object, &options).await {
                Ok(_) | Err(RegistryError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
