//! Many independent writes at once.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use quorate_objects::{kinds, pod};
use quorate_store::Term;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{DeleteOptions, Subresource, Write, WriteOptions};
use crate::part::{Edited, Part};
use crate::precondition::uid_mismatch;
use crate::registry::Registry;

/// Writes in flight at once. The store groups concurrent commands into one append.
const CONCURRENCY: usize = 128;

impl Registry {
    /// Carries out independent writes; the results are in the order of the writes. Each is a
    /// command of its own, so that one that fails does not fail the others.
    pub async fn write_batch(
        &self,
        writes: Vec<Write>,
        fence: Option<Term>,
    ) -> Vec<Result<Arc<Object>, RegistryError>> {
        let writes = writes.into_iter().map(|write| Box::pin(self.write_one(write, fence)));
        futures::stream::iter(writes).buffered(CONCURRENCY).collect().await
    }

    async fn write_one(
        &self,
        write: Write,
        fence: Option<Term>,
    ) -> Result<Arc<Object>, RegistryError> {
        let options = WriteOptions { fence, ..WriteOptions::default() };
        match write {
            Write::Create(value) => self.create(value, &options).await,
            Write::Update(value) => self.update(value, &options).await,
            Write::UpdateStatus(value) => self.update_status(value, &options).await,
            Write::PodStatus { namespace, name, uid, status } => {
                let key = ObjectKey::new(&kinds::POD, &namespace, &name);
                self.write_status(&key, &uid, &status, &options).await
            }
            Write::Bind { namespace, name, uid, revision, node } => {
                let key = ObjectKey::new(&kinds::POD, &namespace, &name);
                let options = WriteOptions { revision, ..options };
                self.bind(&key, &uid, &node, &options).await
            }
            Write::Delete { kind, namespace, name, options } => {
                let options = DeleteOptions { fence, ..options };
                Ok(self.delete(kind, &namespace, &name, &options).await?.object)
            }
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        uid: &str,
        status: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        self.edit(key, Subresource::Status, options, &mut |old| {
            check_uid(key, old, uid)?;
            Ok(Some(Edited::Part(Part::read(key, status, old)?)))
        })
        .await
    }

    /// Binds a pod to a node; `uid`: of the pod that is meant, or "".
    ///
    /// # Errors
    /// [`RegistryError::Conflict`] when it is another pod, is bound to another node, or is being
    /// deleted; and what every write may meet.
    pub async fn bind(
        &self,
        key: &ObjectKey,
        uid: &str,
        node: &str,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        self.edit(key, Subresource::Bind, options, &mut |old| {
            check_uid(key, old, uid)?;
            let old = old.typed::<Pod>()?;
            match pod::node_name(&old) {
                Some(at) if at == node => return Ok(None),
                Some(at) => {
                    return Err(key.conflict(format!("pod is already assigned to node \"{at}\"")));
                }
                None if pod::is_deleting(&old) => {
                    return Err(key.conflict("pod is being deleted, cannot be assigned to a node"));
                }
                None => {}
            }
            let mut bound = Pod { status: old.status.clone(), ..Pod::default() };
            pod::set_condition(&mut bound, "PodScheduled", "True", None, None);
            let status = bound.status.unwrap_or_default();
            Ok(Some(Edited::Part(Part::new(&status, Some(node.to_owned()))?)))
        })
        .await
    }
}

fn check_uid(key: &ObjectKey, object: &Object, uid: &str) -> Result<(), RegistryError> {
    if uid.is_empty() || uid == object.uid() {
        return Ok(());
    }
    Err(key.conflict(uid_mismatch(uid, object.uid())))
}
