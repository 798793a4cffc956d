//! The history of templates of StatefulSets and DaemonSets: ControllerRevisions.
//!
//! The data is the patch that brings the template back, in Kubernetes' form, because `rollout
//! undo` of every client applies it as it is.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use quorate_objects::{Typed, kinds, pod};
use quorate_registry::Propagation;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::ControllerError;
use crate::template::template_hash;

/// The label of pods and revisions that names the revision.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";
/// Names that are tried for one template before giving up.
const COLLISIONS: i32 = 100;

/// The revisions of one owner.
pub(crate) struct History {
    /// Oldest number first; the present one is the last.
    pub all: Vec<Arc<ControllerRevision>>,
    /// That of the present template.
    pub update: Arc<ControllerRevision>,
}

impl History {
    pub fn find(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        self.all.iter().find(|revision| revision.metadata.name.as_deref() == Some(name))
    }
}

/// The name of a revision.
pub(crate) fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.0.pointer("/spec/template")?;
    let mut template = template.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_str(&template.to_string()).ok()
}

fn data_of(template: &PodTemplateSpec) -> Result<Value, ControllerError> {
    let text = serde_json::to_vec(&crate::template::bare(template))?;
    let mut value: Value = serde_json::from_slice(&text)?;
    value["$patch"] = json!("replace");
    Ok(json!({"spec": {"template": value}}))
}

/// Makes sure that the present template has a revision with the highest number. `labels` are
/// the labels of the revisions.
///
/// # Errors
/// As the registry.
pub(crate) async fn sync<T: Typed>(
    context: &Context,
    owner: &T,
    template: &PodTemplateSpec,
    labels: &BTreeMap<String, String>,
) -> Result<History, ControllerError> {
    let uid = owner.metadata().uid.as_deref().unwrap_or_default();
    let mut all = context.owned::<ControllerRevision>(uid);
    all.sort_by_key(|one| (one.revision.unwrap_or_default(), one.metadata.name.clone()));
    let data = data_of(template)?;
    let highest = all.last().and_then(|last| last.revision).unwrap_or_default();
    let found = all.iter().position(|one| one.data.0 == data);
    let update = match found {
        Some(place) if place + 1 == all.len() => Arc::clone(&all[place]),
        Some(place) => {
            // A template that comes back (a rollback) gets a new number.
            let mut renewed = ControllerRevision::clone(&all.remove(place));
            renewed.revision = Some(highest + 1);
            let renewed = context.update(&renewed).await?.typed::<ControllerRevision>()?;
            all.push(Arc::clone(&renewed));
            renewed
        }
        None => {
            let new = create(context, owner, template, data, highest + 1, labels).await?;
            all.push(Arc::clone(&new));
            new
        }
    };
    Ok(History { all, update })
}

async fn create<T: Typed>(
    context: &Context,
    owner: &T,
    template: &PodTemplateSpec,
    data: Value,
    number: i64,
    labels: &BTreeMap<String, String>,
) -> Result<Arc<ControllerRevision>, ControllerError> {
    let meta = owner.metadata();
    for collisions in 0..COLLISIONS {
        let hash = template_hash(template, collisions);
        let mut labels = labels.clone();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let new = ControllerRevision {
            data: RawExtension(data.clone()),
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![pod::controller_reference(owner)]),
                ..ObjectMeta::default()
            },
            revision: Some(number),
        };
        match context.create(&new).await {
            Ok(created) => return Ok(created.typed::<ControllerRevision>()?),
            // Another template with the same hash, or somebody else's: take another name.
            Err(ControllerError::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ControllerError::Other("no name is free for the template's revision".into()))
}

/// Removes the oldest revisions beyond `limit`, but none of those whose names are `live`.
///
/// # Errors
/// As the registry.
pub(crate) async fn clean_up(
    context: &Context,
    history: &History,
    limit: Option<i32>,
    live: &HashSet<String>,
) -> Result<(), ControllerError> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
    let unused: Vec<_> = history.all.iter().filter(|one| !live.contains(name(one))).collect();
    let excess = unused.len().saturating_sub(limit);
    for old in &unused[..excess] {
        let kind = &kinds::CONTROLLER_REVISION;
        context.delete(kind, &old.metadata, None, Propagation::Background).await?;
    }
    Ok(())
}
