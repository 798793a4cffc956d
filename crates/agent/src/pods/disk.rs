//! Whose a volume's files are (`fsGroup`), and how large they may become (`sizeLimit`).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use quorate_objects::quantity;

use super::volumes;

/// A block of `st_blocks`, whatever the file system's own size is.
const BLOCK: u64 = 512;
/// New files in such a directory belong to its group.
const SETGID: u32 = 0o2000;

/// The group that the pod's volumes belong to.
#[must_use]
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    security.fs_group.and_then(|group| u32::try_from(group).ok())
}

/// Gives a volume and everything in it to the group, which may read and write it, as Kubernetes
/// does. With `fsGroupChangePolicy: OnRootMismatch` only when the volume itself is not the group's.
///
/// # Errors
/// When the disk refuses.
pub fn give(pod: &Pod, folder: &Path) -> io::Result<()> {
    let Some(group) = fs_group(pod) else { return Ok(()) };
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
    let root = fs::metadata(folder)?;
    let matches = root.gid() == group && root.mode() & SETGID != 0;
    if policy == Some("OnRootMismatch") && matches {
        return Ok(());
    }
    give_to(folder, group)
}

/// [`give`], whatever the policy.
///
/// # Errors
/// When the disk refuses.
pub fn give_to(path: &Path, group: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if found.is_symlink() {
        return Ok(());
    }
    let wanted = if found.is_dir() { SETGID | 0o770 } else { 0o660 };
    if found.mode() & wanted != wanted {
        fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777 | wanted))?;
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), group)?;
        }
    }
    Ok(())
}

/// Does the pod have volumes that may not grow for ever?
#[must_use]
pub fn has_limits(pod: &Pod) -> bool {
    limits(pod).next().is_some()
}

/// Name and bytes of volumes with a limit.
fn limits(pod: &Pod) -> impl Iterator<Item = (&str, i64, &str)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let bytes = quantity::bytes(limit);
        (bytes > 0).then_some((volume.name.as_str(), bytes, limit.0.as_str()))
    })
}

/// Why the pod has to go: one of its volumes is larger than it may be. Slow: it looks at every
/// file.
#[must_use]
pub fn excess(data_dir: &Path, pod: &Pod) -> Option<String> {
    for (name, bytes, limit) in limits(pod) {
        let place = volumes::empty_dir(data_dir, pod, name);
        if i64::try_from(size(&place)).unwrap_or(i64::MAX) > bytes {
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". "
            ));
        }
    }
    None
}

/// Bytes that a file or directory takes. What goes while one looks takes none.
fn size(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    let own = found.blocks() * BLOCK;
    if !found.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.fold(own, |sum, entry| sum + size(&entry.path()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn pod(security: &serde_json::Value, limit: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "disk-test"},
            "spec": {"containers": [], "securityContext": security, "volumes": [
                {"name": "free", "emptyDir": {}},
                {"name": "bounded", "emptyDir": {"sizeLimit": limit}}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_volume_that_is_too_large_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let pod = pod(&json!({}), "64Ki");
        assert!(has_limits(&pod));
        for name in ["free", "bounded"] {
            let place = volumes::empty_dir(folder.path(), &pod, name);
            fs::create_dir_all(place.join("sub")).unwrap();
        }
        let write = |name: &str, size: usize| {
            let file = volumes::empty_dir(folder.path(), &pod, name).join("sub/file");
            fs::write(file, vec![1; size]).unwrap();
        };
        write("free", 1 << 20);
        write("bounded", 1 << 10);
        assert_eq!(excess(folder.path(), &pod), None);
        write("bounded", 1 << 17);
        assert!(excess(folder.path(), &pod).unwrap().contains("\"bounded\" exceeds"));
    }

    #[test]
    fn files_are_given_to_the_group_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(folder.path()).unwrap().gid();
        let place = folder.path().join("v");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("file"), "x").unwrap();
        fs::set_permissions(place.join("file"), fs::Permissions::from_mode(0o400)).unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "x").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink(&outside, place.join("link")).unwrap();
        give(&pod(&json!({"fsGroup": own}), "1"), &place).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&place) & (SETGID | 0o770), SETGID | 0o770);
        assert_eq!(mode(&place.join("file")), 0o660);
        assert_eq!(mode(&outside), 0o400, "a link leads nowhere");
    }
}
