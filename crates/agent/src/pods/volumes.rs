//! A pod's volumes as directories on the node.
//!
//! Files from ConfigMaps, Secrets and the downward API are written as Kubernetes does it: a
//! directory with all files of one version, and a link `..data` to it that is replaced in one
//! step, so that a reader sees one version or the other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, KeyToPath, Pod, Volume,
};

use super::env::{Lookup, NodeValues, field};
use super::{access, disk};
use crate::identity;
use crate::runtime::Place;

/// Mode of files from ConfigMaps when the pod names none.
const DEFAULT_MODE: i32 = 0o644;
/// Where volumes in memory are, when the node has it.
const MEMORY: &str = "/dev/shm";

/// Where a pod's own files are.
#[must_use]
pub fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join(identity::PODS).join(uid)
}

fn memory_dir(uid: &str) -> PathBuf {
    Path::new(MEMORY).join(format!("quorate-{uid}"))
}

/// Makes or refreshes all volumes but those of claims; answers where each is.
///
/// # Errors
/// When a source is missing or of a kind that we do not know, or the disk refuses.
pub fn prepare(
    data_dir: &Path,
    pod: &Pod,
    lookup: &dyn Lookup,
    node: &NodeValues,
    tokens: &access::Files,
) -> Result<BTreeMap<String, Place>, String> {
    each(data_dir, Sources { pod, lookup, node, tokens }).collect()
}

/// Refreshes all volumes, whatever becomes of the others. Answers what is missing or wrong: the
/// containers that run keep what they have.
pub fn refresh(
    data_dir: &Path,
    pod: &Pod,
    lookup: &dyn Lookup,
    node: &NodeValues,
    tokens: &access::Files,
) -> Vec<String> {
    each(data_dir, Sources { pod, lookup, node, tokens }).filter_map(Result::err).collect()
}

/// Makes or refreshes one volume after the other, as far as it is asked for them.
fn each(
    data_dir: &Path,
    sources: Sources<'_>,
) -> impl Iterator<Item = Result<(String, Place), String>> {
    let pod = sources.pod;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let base = pod_dir(data_dir, uid).join("volumes");
    let own = |v: &&Volume| v.persistent_volume_claim.is_none() && v.ephemeral.is_none();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(own);
    volumes.map(move |volume| match one(&base, uid, volume, &sources) {
        Ok(place) => Ok((volume.name.clone(), Place::Path(place))),
        Err(error) => Err(format!("volume \"{}\": {error}", volume.name)),
    })
}

fn one(base: &Path, uid: &str, volume: &Volume, sources: &Sources<'_>) -> Result<PathBuf, String> {
    if let Some(host) = &volume.host_path {
        return host_path(Path::new(&host.path), host.type_.as_deref().unwrap_or_default());
    }
    let place = base.join(&volume.name);
    if let Some(empty) = &volume.empty_dir {
        let place = if in_memory(empty) { memory_dir(uid).join(&volume.name) } else { place };
        return make_empty_dir(sources.pod, &place).map(|()| place).map_err(|e| e.to_string());
    }
    let files = files(volume, sources)?;
    let files = files.ok_or("this kind of volume is not supported")?;
    write_files(&place, &files, disk::fs_group(sources.pod)).map_err(|e| e.to_string())?;
    Ok(place)
}

fn in_memory(empty: &EmptyDirVolumeSource) -> bool {
    empty.medium.as_deref() == Some("Memory") && Path::new(MEMORY).is_dir()
}

fn make_empty_dir(pod: &Pod, place: &Path) -> io::Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(place)?;
    // Any user of any container may write, as Kubernetes has it.
    fs::set_permissions(place, fs::Permissions::from_mode(0o777))?;
    disk::give(pod, place)
}

/// Where the pod's emptyDir volume of that name is.
#[must_use]
pub fn empty_dir(data_dir: &Path, pod: &Pod, name: &str) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let empty = volumes.find(|volume| volume.name == name).and_then(|v| v.empty_dir.as_ref());
    if empty.is_some_and(in_memory) {
        return memory_dir(uid).join(name);
    }
    pod_dir(data_dir, uid).join("volumes").join(name)
}

/// Checks or makes what a volume of the node's own files leads to.
///
/// # Errors
/// When it is not of that kind.
pub fn host_path(path: &Path, kind: &str) -> Result<PathBuf, String> {
    let shown = path.display();
    match kind {
        "DirectoryOrCreate" => {
            fs::create_dir_all(path).map_err(|e| format!("cannot make {shown}: {e}"))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::write(path, []).map_err(|e| format!("cannot make {shown}: {e}"))?;
        }
        "Directory" if !path.is_dir() => return Err(format!("{shown} is not a directory")),
        "File" if !path.is_file() => return Err(format!("{shown} is not a file")),
        _ => {}
    }
    Ok(path.to_owned())
}

/// Name in the volume, content, mode.
type Files = BTreeMap<String, (Vec<u8>, i32)>;

fn files(volume: &Volume, sources: &Sources<'_>) -> Result<Option<Files>, String> {
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let items = source.items.as_deref();
        return sources.config_map(&source.name, items, mode, source.optional).map(Some);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return sources.secret(name, source.items.as_deref(), mode, source.optional).map(Some);
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return sources.downward(source.items.as_deref().unwrap_or_default(), mode).map(Some);
    }
    let Some(projected) = &volume.projected else { return Ok(None) };
    let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
    let mut all = Files::new();
    for source in projected.sources.iter().flatten() {
        if let Some(source) = &source.config_map {
            let items = source.items.as_deref();
            all.extend(sources.config_map(&source.name, items, mode, source.optional)?);
        }
        if let Some(source) = &source.secret {
            let items = source.items.as_deref();
            all.extend(sources.secret(&source.name, items, mode, source.optional)?);
        }
        if let Some(source) = &source.downward_api {
            all.extend(sources.downward(source.items.as_deref().unwrap_or_default(), mode)?);
        }
        if let Some(source) = &source.service_account_token {
            let token = sources.tokens.get(&(volume.name.clone(), source.path.clone()));
            let token = token.ok_or("there is no token of the pod's service account yet")?;
            all.insert(source.path.clone(), (token.clone()?.into_bytes(), mode));
        }
    }
    Ok(Some(all))
}

/// Where files come from.
struct Sources<'a> {
    pod: &'a Pod,
    lookup: &'a dyn Lookup,
    node: &'a NodeValues,
    tokens: &'a access::Files,
}

impl Sources<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: Option<bool>,
    ) -> Result<Files, String> {
        let Some(found) = self.lookup.config_map(self.namespace(), name) else {
            return missing(optional, format!("configmap \"{name}\" not found"));
        };
        let mut data: BTreeMap<String, Vec<u8>> =
            found.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())).collect();
        data.extend(found.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)));
        select(data, items, mode, optional)
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: Option<bool>,
    ) -> Result<Files, String> {
        let Some(found) = self.lookup.secret(self.namespace(), name) else {
            return missing(optional, format!("secret \"{name}\" not found"));
        };
        let data = found.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
        select(data, items, mode, optional)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Files, String> {
        let mut files = Files::new();
        for item in items {
            let Some(reference) = &item.field_ref else {
                return Err("downwardAPI knows only fieldRef".into());
            };
            let text = field(self.pod, &reference.field_path, self.node)?;
            files.insert(item.path.clone(), (text.into_bytes(), item.mode.unwrap_or(mode)));
        }
        Ok(files)
    }
}

fn missing(optional: Option<bool>, message: String) -> Result<Files, String> {
    if optional == Some(true) { Ok(Files::new()) } else { Err(message) }
}

/// All keys, or those that `items` names.
fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, (value, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(value) => {
                files.insert(item.path.clone(), (value, item.mode.unwrap_or(mode)));
            }
            None if optional == Some(true) => {}
            None => return Err(format!("no key \"{}\"", item.key)),
        }
    }
    Ok(files)
}

/// Writes one version of the files, unless it is there already. The group, when there is one, may
/// read them.
fn write_files(place: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    if files.keys().any(|name| Path::new(name).is_absolute() || name.contains("..")) {
        return Err(io::Error::other("a file's path must stay inside of the volume"));
    }
    let version = format!("..{:016x}", crate::runtime::docker::spec::fnv(&encode(files)));
    fs::create_dir_all(place)?;
    let current = fs::read_link(place.join("..data")).ok();
    if current.as_deref() == Some(Path::new(&version)) {
        return Ok(());
    }
    let folder = place.join(&version);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    for (name, (content, mode)) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        let readable = if group.is_some() { 0o440 } else { 0 };
        let mode = fs::Permissions::from_mode(mode.unsigned_abs() | readable);
        fs::set_permissions(&path, mode)?;
        lchown(&path, None, group)?;
    }
    let fresh = place.join("..data_new");
    let _ = fs::remove_file(&fresh);
    symlink(&version, &fresh)?;
    fs::rename(&fresh, place.join("..data"))?;
    link_names(place, files)?;
    if let Some(old) = current {
        let _ = fs::remove_dir_all(place.join(old));
    }
    Ok(())
}

/// One link for each name at the top, through `..data`; links of names that went are removed.
fn link_names(place: &Path, files: &Files) -> io::Result<()> {
    let tops: std::collections::BTreeSet<&str> =
        files.keys().filter_map(|name| name.split('/').next()).collect();
    for top in &tops {
        let link = place.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), link)?;
        }
    }
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn encode(files: &Files) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, (content, mode)) in files {
        for part in [name.as_bytes(), content, &mode.to_le_bytes()] {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
    }
    all
}

/// Removes everything that a pod had on the node's disk.
///
/// # Errors
/// When the disk refuses.
pub fn remove(data_dir: &Path, uid: &str) -> io::Result<()> {
    for folder in [pod_dir(data_dir, uid), memory_dir(uid)] {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "volumes_test.rs"]
mod tests;
