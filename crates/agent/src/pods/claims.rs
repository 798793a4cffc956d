//! Where the data of a pod's claims is: a claim is bound to a PersistentVolume, and that is a
//! Docker volume of this node, or a directory on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use quorate_objects::storage;

use super::disk;
use super::env::Lookup;
use super::steps::StepError;
use super::volumes::host_path;
use super::worker::{CONFIG_ERROR, Context, WAITING};
use crate::assignments::SharedLookup;
use crate::runtime::{Place, RuntimeError, VolumeSpec};

/// What a claim's volume is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Engine(VolumeSpec),
    Directory { path: PathBuf, kind: String },
}

/// The places of the pod's claims, by the name of its volume. Makes Docker volumes that are not
/// there yet. `first`: nothing of the pod uses them yet, so they are given to its group.
///
/// # Errors
/// A claim is not bound (yet), or to a volume that cannot be used here.
pub async fn places(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    first: bool,
) -> Result<BTreeMap<String, Place>, StepError> {
    let lookup = SharedLookup(context.objects.clone());
    let mut places = BTreeMap::new();
    for (volume, claim) in storage::claims_of(pod) {
        let place = match source(pod, &claim, &lookup, &context.node_name)? {
            Source::Engine(spec) => {
                let name = spec.name.clone();
                let folder = context.runtime.ensure_volume(&spec).await.map_err(failed)?;
                Place::Volume { name, folder }
            }
            Source::Directory { path, kind } => {
                let made = tokio::task::spawn_blocking(move || host_path(&path, &kind)).await;
                let made = made.unwrap_or_else(|e| Err(e.to_string()));
                Place::Path(made.map_err(|e| config_error(format!("claim \"{claim}\": {e}")))?)
            }
        };
        let ours = matches!(place, Place::Volume { .. }) && context.runtime.runs_processes();
        if first && ours {
            let (owned, folder) = (pod.clone(), place.path().to_owned());
            let given = tokio::task::spawn_blocking(move || disk::give(&owned, &folder)).await;
            if let Ok(Err(error)) = given {
                return Err(config_error(format!("fsGroup of claim \"{claim}\": {error}")));
            }
        }
        places.insert(volume.to_owned(), place);
    }
    Ok(places)
}

fn failed(error: RuntimeError) -> StepError {
    match error {
        RuntimeError::Failed(message) | RuntimeError::NotFound(message) => {
            StepError::Failed { reason: CONFIG_ERROR, message }
        }
        error => StepError::Runtime(error),
    }
}

fn config_error(message: String) -> StepError {
    StepError::Failed { reason: CONFIG_ERROR, message }
}

/// It comes by itself, soon: no failure.
fn waiting(message: String) -> StepError {
    StepError::Failed { reason: WAITING, message }
}

fn source(pod: &Pod, name: &str, lookup: &dyn Lookup, node: &str) -> Result<Source, StepError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(claim) = lookup.claim(namespace, name) else {
        return Err(waiting(format!("persistentvolumeclaim \"{name}\" not found")));
    };
    let Some(volume) = storage::volume_of(&claim) else {
        return Err(waiting(format!("persistentvolumeclaim \"{name}\" is not bound yet")));
    };
    let Some(object) = lookup.volume(volume) else {
        return Err(waiting(format!("persistentvolume \"{volume}\" not found")));
    };
    if !storage::is_bound_to(&object, &claim) {
        let text = format!("persistentvolume \"{volume}\" is not bound to claim \"{name}\" yet");
        return Err(waiting(text));
    }
    of_volume(&object, &claim, node).map_err(config_error)
}

fn of_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    node: &str,
) -> Result<Source, String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if let Some(docker) = storage::docker_volume(volume) {
        if !docker.node.is_empty() && docker.node != node {
            return Err(format!("volume \"{name}\" is on node {}, not here", docker.node));
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &claim.metadata;
        return Ok(Source::Engine(VolumeSpec {
            name: docker.name.to_owned(),
            claim: format!("{}/{}", text(&meta.namespace), text(&meta.name)),
        }));
    }
    let Some(spec) = &volume.spec else { return Err(format!("volume \"{name}\" has no spec")) };
    if let Some(local) = &spec.local {
        return Ok(Source::Directory { path: (&local.path).into(), kind: "Directory".into() });
    }
    if let Some(host) = &spec.host_path {
        let kind = host.type_.clone().unwrap_or_default();
        return Ok(Source::Directory { path: (&host.path).into(), kind });
    }
    Err(format!(
        "volume \"{name}\" is of a kind that nodes cannot mount; use hostPath, local, or class \
         \"{}\"",
        storage::LOCAL_CLASS
    ))
}

#[cfg(test)]
#[path = "claims_test.rs"]
mod tests;
