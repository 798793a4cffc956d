//! Whose data directory it is. A lock keeps a second agent out; a file keeps another
//! cluster's or node's agent out.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;

/// Where the files of pods are, secrets among them, which any user of a container may have to
/// read. So nobody else gets into this directory. The one around it may be there for others too.
pub const PODS: &str = "pods";
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// Content of identity.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Name of the node.
    pub node_name: String,
}

/// A data directory that is ours as long as this lives.
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// When it cannot be made or another process has it.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        let refuse = |message: String| AgentError::DataDir { path: path.to_owned(), message };
        fs::create_dir_all(path).map_err(|e| refuse(format!("cannot make it: {e}")))?;
        // Docker takes absolute paths only.
        let path = path.canonicalize().map_err(|e| refuse(e.to_string()))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|e| refuse(format!("cannot write to it: {e}")))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            refuse("another agent is using it; stop that agent or use another --data-dir".into())
        })?;
        let pods = path.join(PODS);
        fs::create_dir_all(&pods)
            .and_then(|()| fs::set_permissions(&pods, Permissions::from_mode(PRIVATE_DIRECTORY)))
            .map_err(|e| refuse(format!("cannot keep other users out of {PODS:?} in it: {e}")))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Id of the cluster that the directory belongs to, once it is known.
    ///
    /// # Errors
    /// When it belongs to another node, or to another cluster than `cluster`.
    pub fn cluster(&self, node: &str, cluster: Option<&str>) -> Result<Option<String>, AgentError> {
        let refuse = |message: String| AgentError::DataDir { path: self.path.clone(), message };
        let text = match fs::read(self.path.join("identity.json")) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(refuse(format!("cannot read identity.json: {e}"))),
        };
        let identity: Identity = serde_json::from_slice(&text)
            .map_err(|e| refuse(format!("identity.json is damaged: {e}")))?;
        if identity.node_name != node {
            return Err(refuse(format!(
                "it belongs to node \"{}\", not to \"{node}\"; use another --data-dir or that name",
                identity.node_name
            )));
        }
        if cluster.is_some_and(|cluster| cluster != identity.cluster_id) {
            return Err(refuse(format!(
                "it belongs to cluster {}, not to {}; use another --data-dir",
                identity.cluster_id,
                cluster.unwrap_or_default()
            )));
        }
        Ok(Some(identity.cluster_id))
    }

    /// The number of this start: `now`, or one more than the last start had. A clock that has
    /// been turned back in between must not make this agent the older one of two, which masters
    /// send away.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn incarnation(&self, now: u64) -> Result<u64, AgentError> {
        let path = self.path.join("incarnation");
        let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let next = last.map_or(now, |last| now.max(last.saturating_add(1)));
        replace(&path, format!("{next}\n").as_bytes()).map_err(|e| AgentError::DataDir {
            path: self.path.clone(),
            message: format!("cannot write incarnation: {e}"),
        })?;
        Ok(next)
    }

    /// Writes down whose it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn claim(&self, node: &str, cluster: &str) -> Result<(), AgentError> {
        let identity = Identity { cluster_id: cluster.to_owned(), node_name: node.to_owned() };
        let text = serde_json::to_vec_pretty(&identity).unwrap_or_default();
        replace(&self.path.join("identity.json"), &text).map_err(|e| AgentError::DataDir {
            path: self.path.clone(),
            message: format!("cannot write identity.json: {e}"),
        })
    }
}

/// Replaces a file's content in one step that survives a loss of power. Only the agent's own user
/// may read it.
///
/// # Errors
/// When the disk refuses; the old content is still there then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(PRIVATE_FILE);
    let mut file = options.open(&fresh)?;
    // One that was left by an agent that ended before it could rename it keeps its mode.
    file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "identity_test.rs"]
mod tests;
