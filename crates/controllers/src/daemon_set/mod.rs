//! DaemonSets: one pod on every node that the template allows.

mod plan;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_objects::{Selector, kinds};
use quorate_registry::ObjectEvent;

use crate::context::Context;
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;
use crate::revisions::{self, HASH_LABEL};
use crate::workload::{self, BURST, Workload};
use plan::State;

/// The controller of DaemonSets.
pub struct DaemonSets {
    context: Arc<Context>,
}

impl DaemonSets {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

fn selector_of(set: &DaemonSet) -> Option<Selector> {
    Selector::from_label_selector(&set.spec.selector).ok()
}

#[async_trait]
impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        match &event.object {
            Some(object) if *object.kind == kinds::NODE => self.all(),
            _ => workload::wants::<DaemonSet>(&self.context, event, selector_of),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&kinds::DAEMON_SET)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(set) = self.context.get::<DaemonSet>(&key.namespace, &key.name) else {
            return Ok(Requeue::Done);
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Done);
        }
        let Some(selector) = selector_of(&set) else {
            return Err(ControllerError::Other("the selector cannot be read".into()));
        };
        let workload = Workload { context: &self.context, owner: &*set, selector };
        let pods = workload.claim(|_| true).await?;
        let labels = set.spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let labels = labels.unwrap_or_default();
        let history = revisions::sync(&self.context, &*set, &set.spec.template, &labels).await?;
        let update = history.update.metadata.labels.as_ref();
        let update = update.and_then(|l| l.get(HASH_LABEL)).cloned().unwrap_or_default();
        let nodes = self.context.list::<Node>(None);
        let state = State {
            set: &set,
            nodes: &nodes,
            pods,
            update: &update,
            now: quorate_objects::time::timestamp(),
        };
        let plan = plan::plan(&state);
        let new: Vec<Pod> =
            plan.create.iter().take(BURST).map(|node| plan::new_pod(&set, &update, node)).collect();
        let mut done = workload.create(&new).await;
        if done.is_ok() {
            done = workload.delete(&plan.delete[..plan.delete.len().min(BURST)]).await;
        }
        let (status, wait) = plan::status(&state);
        if set.status.as_ref() != Some(&status) {
            let mut updated = DaemonSet::clone(&set);
            updated.status = Some(status);
            self.context.update_status(&updated).await?;
        }
        done?;
        let hashes =
            state.pods.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH_LABEL));
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        let mut live: HashSet<String> = hashes.map(|hash| format!("{set_name}-{hash}")).collect();
        live.insert(revisions::name(&history.update).to_owned());
        revisions::clean_up(&self.context, &history, set.spec.revision_history_limit, &live)
            .await?;
        let more = plan.create.len() > BURST || plan.delete.len() > BURST;
        Ok(match wait.into_iter().chain(plan.wait).min() {
            _ if more => Requeue::After(Duration::ZERO),
            Some(wait) => Requeue::After(wait),
            None => Requeue::Done,
        })
    }
}
