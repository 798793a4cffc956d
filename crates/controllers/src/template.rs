//! Templates of pods, told apart by their content.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that tells the pods of one template of a Deployment from those of another.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// The template without the label that only ReplicaSets put there.
pub(crate) fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut bare = template.clone();
    let meta = bare.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().remove(TEMPLATE_HASH);
    // An empty map and none at all are the same.
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
    meta.creation_timestamp = None;
    bare
}

/// A short name for a template; the same on every master and in every version (FNV-1a).
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let json = serde_json::to_vec(&bare(template)).unwrap_or_default();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in
        json.into_iter().chain(collisions.to_le_bytes().into_iter().filter(|_| collisions > 0))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (0..10)
        .map(|_| {
            let letter = ALPHABET[usize::try_from(hash % 27).unwrap_or_default()];
            hash /= 27;
            char::from(letter)
        })
        .collect()
}
