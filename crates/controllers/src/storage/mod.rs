//! Claims and volumes: claims are bound to volumes that exist, or to Docker volumes on a node that
//! are made for them; volumes whose claim is gone are kept or go.
//!
//! A volume's object is written before its claim refers to it, under a name made of the claim's
//! uid, so that a leader that dies in between leaves nothing that the next one makes twice. The
//! data is made by the node's agent when a container first mounts it, and removed by that agent
//! alone, when the object is being deleted and says so ([`quorate_objects::storage`]).

mod claims;
mod ephemeral;
mod volumes;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use claims::Claims;
pub use ephemeral::EphemeralClaims;
pub use volumes::Volumes;

/// Takes a finalizer away; says whether it was there.
fn release(meta: &mut ObjectMeta, finalizer: &str) -> bool {
    let Some(list) = &mut meta.finalizers else { return false };
    let before = list.len();
    list.retain(|one| one != finalizer);
    list.len() != before
}

#[cfg(test)]
#[path = "storage_test.rs"]
mod tests;
