//! Who a pod of a StatefulSet is: its name, its host name, its claims.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use quorate_objects::{Typed, kinds, pod};

use crate::revisions::HASH_LABEL;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number in the name of a pod of the set; `None` for names that are none of the set's.
pub(super) fn ordinal(set: &StatefulSet, name: &str) -> Option<i32> {
    let rest = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let number: i32 = rest.parse().ok()?;
    // "web-01" and "web-+1" are other names than "web-1".
    (number.to_string() == rest).then_some(number)
}

/// The ordinals that the set shall have.
pub(super) fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
    start..start.saturating_add(set.spec.replicas.unwrap_or(1).max(0))
}

fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The name of a claim of a pod.
pub(super) fn claim_name(template: &PersistentVolumeClaim, pod: &str) -> String {
    format!("{}-{pod}", template.metadata.name.as_deref().unwrap_or_default())
}

/// The pod of an ordinal, of the template of `revision`.
pub(super) fn new_pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let name = format!("{}-{ordinal}", set_name(set));
    let mut object = pod::from_template(template);
    object.metadata.name = Some(name.clone());
    object.metadata.namespace.clone_from(&set.metadata.namespace);
    object.metadata.owner_references = Some(vec![pod::controller_reference(set)]);
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    let spec = object.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain.clone_from(&set.spec.service_name);
    let claims = set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    let volumes = spec.volumes.get_or_insert_default();
    // A claim takes the place of a volume of the same name.
    volumes.retain(|volume| claims.iter().all(|c| c.metadata.name.as_ref() != Some(&volume.name)));
    volumes.extend(claims.iter().map(|claim| Volume {
        name: claim.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(claim, &name),
            read_only: None,
        }),
        ..Volume::default()
    }));
    object
}

/// Do claims go with the set?
fn claims_go_with_set(set: &StatefulSet) -> bool {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
}

/// Do claims go with a pod that is one too many?
fn claims_go_with_pod(set: &StatefulSet) -> bool {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete")
}

/// The reference by which a claim goes with its set or pod. That is no controller: it does not
/// wait for the claim, and the claim may be let go again.
fn claim_owner<T: Typed>(owner: &T) -> OwnerReference {
    OwnerReference {
        controller: None,
        block_owner_deletion: None,
        ..pod::controller_reference(owner)
    }
}

/// The ordinal of the pod that a claim belongs to; `None`: it is none of the set's.
pub(super) fn ordinal_of_claim(set: &StatefulSet, claim: &PersistentVolumeClaim) -> Option<i32> {
    let name = claim.metadata.name.as_deref()?;
    set.spec.volume_claim_templates.iter().flatten().find_map(|template| {
        let prefix = format!("{}-", template.metadata.name.as_deref()?);
        ordinal(set, name.strip_prefix(&prefix)?)
    })
}

/// Whom a claim of an ordinal has to refer to, when that is not what it does; `pod`: of the
/// ordinal, if there is one. References to a pod that is gone are left to the garbage collector,
/// and so are those to others.
pub(super) fn claim_owners(
    set: &StatefulSet,
    ordinal: i32,
    pod: Option<&Pod>,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let uid = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
    let (set_uid, pod_uid) = (uid(&set.metadata), pod.map(|pod| uid(&pod.metadata)));
    let present = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let refers = present.iter().any(|owner| owner.uid == set_uid);
    let wanted = ordinals(set).contains(&ordinal);
    let owner = match pod {
        Some(pod) if !wanted && claims_go_with_pod(set) => Some(claim_owner(pod)),
        _ if claims_go_with_set(set) && (pod.is_some() || refers) => Some(claim_owner(set)),
        _ => None,
    };
    let ours = |one: &&OwnerReference| one.uid == set_uid || Some(&one.uid) == pod_uid.as_ref();
    let now: Vec<&str> = present.iter().filter(ours).map(|one| one.uid.as_str()).collect();
    if now == owner.iter().map(|one| one.uid.as_str()).collect::<Vec<_>>() {
        return None;
    }
    let others = present.iter().filter(|one| !ours(one)).cloned();
    Some(others.chain(owner).collect())
}

/// Is a claim on its way out, or will it be as soon as the garbage collector has seen that its
/// pod is gone? A new pod must not find it.
pub(super) fn is_going(set: &StatefulSet, claim: &PersistentVolumeClaim) -> bool {
    let own = ordinal_of_claim(set, claim);
    let mut owners = claim.metadata.owner_references.iter().flatten();
    claim.metadata.deletion_timestamp.is_some()
        || owners.any(|owner| {
            owner.kind == kinds::POD.kind && own.is_some() && ordinal(set, &owner.name) == own
        })
}

/// The claims of the pod of an ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let name = format!("{}-{ordinal}", set_name(set));
    let one = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
        claim.metadata = ObjectMeta {
            name: Some(claim_name(template, &name)),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: template.metadata.annotations.clone(),
            owner_references: claims_go_with_set(set).then(|| vec![claim_owner(set)]),
            ..ObjectMeta::default()
        };
        claim.status = None;
        claim.set_defaults();
        claim
    };
    set.spec.volume_claim_templates.iter().flatten().map(one).collect()
}
