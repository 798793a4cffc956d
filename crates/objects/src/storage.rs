//! Claims and volumes: which volume a claim may have, what our provisioner can make, and where
//! the data of its volumes is. Pure; provisioner, scheduler, api and agent all ask here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
    VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{Selector, affinity, quantity};

/// The provisioner of Docker volumes on nodes, and the driver in the volumes that it makes.
pub const PROVISIONER: &str = "docker.quorate.dev";
/// Of classes whose volumes an administrator makes.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The class that every cluster has.
pub const LOCAL_CLASS: &str = "local";
/// Marks the class that claims without one get.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// By which the scheduler tells whoever makes a claim's volume the node of its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who is to make a claim's volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// Who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// A claim was bound once: without its volume it is lost, not pending.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Keeps a claim as long as a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume as long as a claim has it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Keeps a volume's object until its node has removed the data.
pub const DATA_FINALIZER: &str = "quorate.dev/docker-volume";
/// The attribute of a volume that says on which node its data is.
const NODE: &str = "node";
/// The label by which volumes stay on their node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A pod's claims: name of the volume, name of the claim. Those that are made for the pod are
/// called after it.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = (&str, String)> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(move |volume| {
        let claim = match &volume.persistent_volume_claim {
            Some(source) => source.claim_name.clone(),
            None => volume.ephemeral.as_ref().map(|_| format!("{pod_name}-{}", volume.name))?,
        };
        Some((volume.name.as_str(), claim))
    })
}

/// The claim's class; none and "" are told apart: "" wants a volume without a class.
#[must_use]
pub fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.storage_class_name.as_deref()
}

/// The volume that the claim names.
#[must_use]
pub fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Is it the class of claims that name none?
#[must_use]
pub fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
}

/// Of several default classes, the newest, as in Kubernetes.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a StorageClass>) -> Option<&'a str> {
    let created = |class: &&StorageClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, std::cmp::Reverse(class.metadata.name.clone()))
    };
    classes.filter(|class| is_default(class)).max_by_key(created)?.metadata.name.as_deref()
}

/// Does the volume wait for the claim's first pod, to be made where that runs?
#[must_use]
pub fn waits_for_pod(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// May only one pod use the claim?
#[must_use]
pub fn is_for_one_pod(claim: &PersistentVolumeClaim) -> bool {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.access_modes.as_ref())
        .is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

fn modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn is_block(mode: Option<&String>) -> bool {
    mode.is_some_and(|mode| mode == "Block")
}

/// Bytes that the claim asks for.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")).map_or(0, quantity::bytes)
}

/// Bytes that the volume has.
#[must_use]
pub fn capacity(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| capacity.get("storage")).map_or(0, quantity::bytes)
}

/// Why our provisioner cannot make a volume for the claim, with what to do about it.
#[must_use]
pub fn impossible(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    if class.provisioner != PROVISIONER {
        return None;
    }
    let spec = claim.spec.as_ref()?;
    let shared = modes(claim).iter().find(|mode| !mode.starts_with("ReadWriteOnce"));
    if let Some(mode) = shared {
        return Some(format!(
            "{PROVISIONER} cannot provide access mode {mode}: its volumes are on one node; use \
             ReadWriteOnce or ReadWriteOncePod"
        ));
    }
    if is_block(spec.volume_mode.as_ref()) {
        return Some(format!("{PROVISIONER} cannot provide volumeMode Block; use Filesystem"));
    }
    if spec.selector.is_some() {
        return Some(format!(
            "{PROVISIONER} cannot provide for a claim with a selector; remove it"
        ));
    }
    let data = spec.data_source.is_some() || spec.data_source_ref.is_some();
    if data {
        return Some(format!("{PROVISIONER} cannot fill a volume from a dataSource; remove it"));
    }
    let topologies = class.allowed_topologies.as_ref().is_some_and(|list| !list.is_empty());
    let text = "cannot provide for a class with allowedTopologies; use node affinity of the pod";
    topologies.then(|| format!("{PROVISIONER} {text}"))
}

/// May the claim have this volume, as far as the two say? (Whether it is free, and on the right
/// node, is another question.)
#[must_use]
pub fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let offered = has.access_modes.as_deref().unwrap_or_default();
    let labels = volume.metadata.labels.as_ref();
    let selected = wants.selector.as_ref().is_none_or(|selector| {
        Selector::from_label_selector(selector).is_ok_and(|s| s.matches_labels(labels))
    });
    volume.metadata.deletion_timestamp.is_none()
        && class(&has.storage_class_name) == class(&wants.storage_class_name)
        && modes(claim).iter().all(|mode| offered.contains(mode))
        && is_block(has.volume_mode.as_ref()) == is_block(wants.volume_mode.as_ref())
        && capacity(volume) >= requested(claim)
        && selected
}

/// Is the volume free for the claim: nobody's, or meant for it?
#[must_use]
pub fn is_free_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = claim_ref(volume) else { return true };
    let meta = &claim.metadata;
    let uid = reference.uid.as_ref().filter(|uid| !uid.is_empty());
    reference.namespace == meta.namespace
        && reference.name == meta.name
        && uid.is_none_or(|uid| meta.uid.as_ref() == Some(uid))
}

/// The claim that the volume is or shall be bound to.
#[must_use]
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Is it this very claim that the volume is bound to?
#[must_use]
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let uid = claim.metadata.uid.as_ref().filter(|uid| !uid.is_empty());
    uid.is_some() && claim_ref(volume).and_then(|reference| reference.uid.as_ref()) == uid
}

/// A reference to the claim.
#[must_use]
pub fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// What the volume asks of its node.
#[must_use]
pub fn node_affinity(volume: &PersistentVolume) -> Option<&NodeSelector> {
    volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()
}

/// May the volume be used on a node of this name and these labels?
#[must_use]
pub fn reaches(volume: &PersistentVolume, node: &str, labels: &BTreeMap<String, String>) -> bool {
    node_affinity(volume).is_none_or(|selector| {
        let mut terms = selector.node_selector_terms.iter();
        terms.any(|term| affinity::matches_term(term, node, labels))
    })
}

/// The volume that our provisioner makes for a claim on a node: a Docker volume of the same name.
/// Its name is made of the claim's uid, so that it is made once.
#[must_use]
pub fn provision(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &str,
) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let size = spec.resources.and_then(|r| r.requests).and_then(|mut r| r.remove("storage"));
    let here = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![here]), match_fields: None };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.into(), PROVISIONER.into())])),
            finalizers: Some(vec![VOLUME_PROTECTION.into(), DATA_FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(BTreeMap::from([(
                "storage".to_owned(),
                size.unwrap_or_else(|| ApiQuantity("0".into())),
            )])),
            claim_ref: Some(reference_to(claim)),
            csi: Some(CSIPersistentVolumeSource {
                driver: PROVISIONER.to_owned(),
                volume_handle: name,
                volume_attributes: Some(BTreeMap::from([(NODE.to_owned(), node.to_owned())])),
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// A Docker volume on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DockerVolume<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node; empty when the volume does not say it.
    pub node: &'a str,
}

/// The Docker volume that holds the data of a volume, when one does.
#[must_use]
pub fn docker_volume(volume: &PersistentVolume) -> Option<DockerVolume<'_>> {
    let csi = volume.spec.as_ref()?.csi.as_ref().filter(|csi| csi.driver == PROVISIONER)?;
    let node = csi.volume_attributes.as_ref().and_then(|all| all.get(NODE));
    Some(DockerVolume { name: &csi.volume_handle, node: node.map_or("", String::as_str) })
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|one| one == finalizer)
}

/// The data that a node is to remove now: that of a volume which is being deleted, which no claim
/// has any more, and which says that its data shall go with it.
#[must_use]
pub fn data_to_remove(volume: &PersistentVolume) -> Option<DockerVolume<'_>> {
    let meta = &volume.metadata;
    let policy = volume.spec.as_ref()?.persistent_volume_reclaim_policy.as_deref();
    let doomed = meta.deletion_timestamp.is_some()
        && policy == Some("Delete")
        && has_finalizer(meta, DATA_FINALIZER)
        && !has_finalizer(meta, VOLUME_PROTECTION);
    docker_volume(volume).filter(|_| doomed)
}

#[cfg(test)]
#[path = "storage_test.rs"]
mod tests;
