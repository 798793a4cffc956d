//! Objects that every cluster has.

use quorate_objects::storage;
use quorate_store::Term;
use serde_json::{Value, json};

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

    /// Creates the roles and bindings that every cluster has when they are missing, and puts
    /// right those that differ and do not say that they shall stay
    /// (`rbac.authorization.kubernetes.io/autoupdate: "false"`). Writes nothing when all are as
    /// they should be.
    ///
    /// # Errors
    /// Those of [`Registry::create`] and [`Registry::update`].
    pub async fn ensure_system_roles(&self, fence: Option<Term>) -> Result<(), RegistryError> {
        let options = WriteOptions { fence, ..WriteOptions::default() };
        for wanted in crate::system_roles::all() {
            let kind = crate::write::kind_of(&wanted)?;
            let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
            let done = match self.cache().get(kind, "", name) {
                None => self.create(wanted, &options).await,
                Some(found) if differs(&found.value(), &wanted) => {
                    self.update(wanted, &options).await
                }
                Some(_) => continue,
            };
            match done {
                Ok(_) | Err(RegistryError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Is a default role or binding not what it should be, and may be put right? Subjects that users
/// have added to a binding stay.
fn differs(found: &Value, wanted: &Value) -> bool {
    let keep = "rbac.authorization.kubernetes.io/autoupdate";
    if found["metadata"]["annotations"][keep] == "false" {
        return false;
    }
    let same = |field: &str| {
        let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        found[field] == wanted[field] || (empty(&found[field]) && empty(&wanted[field]))
    };
    !same("rules") || !same("aggregationRule")
}
