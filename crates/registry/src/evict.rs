//! Evictions: deletions of pods that a disruption budget may forbid.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use quorate_objects::{Selector, Typed, kinds, pod, time};
use quorate_store::Consistency;

use crate::delete::Deleted;
use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::Registry;

/// Attempts against others who change the same budget.
const ATTEMPTS: usize = 32;

/// What a budget says to an eviction.
enum Verdict {
    /// It is none of its business: the pod is not one of those it keeps.
    Free,
    /// It allows one, and is so written.
    Counted(Box<PodDisruptionBudget>),
}

impl Registry {
    /// Deletes a pod when its disruption budget allows it now.
    ///
    /// Invariant: an eviction is first counted in the budget, in a write that compares the
    /// budget's revision, so that two evictions never use the same allowance.
    ///
    /// # Errors
    /// [`RegistryError::TooManyRequests`] when the budget forbids it: try again later. Else
    /// those of [`Self::delete`].
    pub async fn evict(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        let key = ObjectKey::new(&kinds::POD, namespace, name);
        let object = self.load(&key).await?.object.typed::<Pod>()?;
        if needs_leave(&object) {
            // A budget that was made through another master a moment ago counts too.
            self.freshen(Consistency::Linearizable).await?;
            self.take_leave(&object, options).await?;
            if !options.dry_run {
                self.mark(&key, &object, options).await?;
            }
        }
        self.delete(&kinds::POD, namespace, name, options).await
    }

    async fn take_leave(&self, object: &Pod, options: &DeleteOptions) -> Result<(), RegistryError> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let budgets = self.inner.cache.list(&kinds::POD_DISRUPTION_BUDGET, Some(namespace));
        let ours: Vec<Arc<Object>> =
            budgets.into_iter().filter(|budget| selects(budget, object)).collect();
        let [budget] = ours.as_slice() else {
            if ours.is_empty() {
                return Ok(());
            }
            return Err(RegistryError::Internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                 does not support."
                    .into(),
            ));
        };
        let key = budget.key();
        let mut budget = Arc::clone(budget);
        for _ in 0..ATTEMPTS {
            let typed = budget.typed::<PodDisruptionBudget>()?;
            let Verdict::Counted(counted) = judge(&typed, object)? else {
                return Ok(());
            };
            let value =
                counted.to_value().map_err(|error| RegistryError::Internal(error.to_string()))?;
            let write = WriteOptions {
                fence: options.fence,
                dry_run: options.dry_run,
                ..WriteOptions::default()
            };
            match self.update_status(value, &write).await {
                Ok(_) => return Ok(()),
                // Gone meanwhile: nobody forbids it.
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() => budget = self.reload(&key).await?.object,
                Err(error) => return Err(error),
            }
        }
        Err(crate::write::busy())
    }

    /// Says on the pod why it goes: rules of Jobs tell disruptions from failures by that.
    async fn mark(
        &self,
        key: &ObjectKey,
        object: &Pod,
        options: &DeleteOptions,
    ) -> Result<(), RegistryError> {
        let write = WriteOptions { fence: options.fence, ..WriteOptions::default() };
        let uid = object.metadata.uid.clone();
        let marked = self
            .modify_status::<Pod>(&kinds::POD, &key.namespace, &key.name, &write, |pod| {
                pod.metadata.uid == uid
                    && pod::set_condition(
                        pod,
                        "DisruptionTarget",
                        "True",
                        Some("EvictionByEvictionAPI"),
                        Some("Eviction API: evicting"),
                    )
            })
            .await;
        marked.map(|_| ())
    }
}

/// Pods that do no work (any more, or yet) may always go.
fn needs_leave(object: &Pod) -> bool {
    pod::is_active(object) && pod::phase(object) != "Pending"
}

fn selects(budget: &Object, object: &Pod) -> bool {
    let Ok(budget) = budget.typed::<PodDisruptionBudget>() else { return false };
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector: &LabelSelector| {
        Selector::from_label_selector(selector)
            .is_ok_and(|selector| selector.matches_labels(object.metadata.labels.as_ref()))
    })
}

fn judge(budget: &PodDisruptionBudget, object: &Pod) -> Result<Verdict, RegistryError> {
    let status = budget.status.clone().unwrap_or_default();
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let (healthy, desired) =
        (status.current_healthy.unwrap_or_default(), status.desired_healthy.unwrap_or_default());
    let spec = budget.spec.as_ref();
    let always =
        spec.and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
    // A pod that is not ready is no loss, as long as the others are enough.
    if !pod::is_ready(object) && (always || (healthy >= desired && desired > 0)) {
        return Ok(Verdict::Free);
    }
    if status.observed_generation < budget.metadata.generation {
        return Err(RegistryError::TooManyRequests {
            message: "Cannot evict pod as it would violate the pod's disruption budget.".into(),
            cause: format!("The disruption budget {name} is still being processed by the server."),
            retry_after_seconds: 10,
        });
    }
    let allowed = status.disruptions_allowed.unwrap_or_default();
    if allowed <= 0 {
        return Err(RegistryError::TooManyRequests {
            message: "Cannot evict pod as it would violate the pod's disruption budget.".into(),
            cause: format!(
                "The disruption budget {name} needs {desired} healthy pods and has {healthy} \
                 currently"
            ),
            retry_after_seconds: 0,
        });
    }
    let mut counted = budget.clone();
    let status = counted.status.get_or_insert_default();
    status.disruptions_allowed = Some(allowed - 1);
    let pod = object.metadata.name.clone().unwrap_or_default();
    status.disrupted_pods.get_or_insert_default().insert(pod, time::now());
    Ok(Verdict::Counted(Box::new(counted)))
}
