//! Service accounts: every namespace has the one that pods get which name none.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_objects::kinds;
use quorate_registry::{DEFAULT_SERVICE_ACCOUNT, EventKind, ObjectEvent};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// The controller of default service accounts; its keys are namespaces.
pub struct ServiceAccounts {
    context: Arc<Context>,
}

impl ServiceAccounts {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = &event.object else { return Vec::new() };
        if *object.kind == kinds::NAMESPACE {
            return vec![key_of(object)];
        }
        let ours = *object.kind == kinds::SERVICE_ACCOUNT
            && event.kind == EventKind::Deleted
            && object.name() == DEFAULT_SERVICE_ACCOUNT;
        let name = object.namespace().to_owned();
        ours.then(|| Key { kind: &kinds::NAMESPACE, namespace: String::new(), name })
            .into_iter()
            .collect()
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::NAMESPACE)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let cache = self.context.registry().cache();
        let namespace = cache.get(&kinds::NAMESPACE, "", &key.name);
        let present = cache.get(&kinds::SERVICE_ACCOUNT, &key.name, DEFAULT_SERVICE_ACCOUNT);
        if present.is_some() || namespace.is_none_or(|namespace| namespace.is_deleting()) {
            return Ok(Requeue::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT_SERVICE_ACCOUNT.to_owned()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.context.create(&account).await {
            Ok(_) | Err(ControllerError::AlreadyExists(_)) => Ok(Requeue::Done),
            Err(error) => Err(error),
        }
    }
}
