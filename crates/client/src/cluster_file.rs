//! `cluster.json`: where the processes of a cluster are, and how the command line finds it.

use std::io;
use std::path::{Path, PathBuf};

use quorate_proto::Tls;
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "cluster.json";

/// A master's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterEntry {
    /// Its name.
    pub name: String,
    /// Its process id; absent when it is not of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where clients reach it.
    pub url: String,
    /// Where the other masters reach it.
    #[serde(default)]
    pub peer_url: String,
    /// Where it keeps log and state.
    #[serde(default)]
    pub data_dir: PathBuf,
}

/// A node's agent process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Its process id; absent when it is not of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where it keeps its state.
    #[serde(default)]
    pub data_dir: PathBuf,
    /// Where node ports are reached.
    #[serde(default)]
    pub address: String,
}

/// The address that fails over between the masters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointEntry {
    /// Its process id; absent when it is not of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where clients reach it.
    pub url: String,
}

/// The file, with the place it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Identity of the cluster.
    #[serde(default)]
    pub cluster_id: String,
    /// The masters.
    pub masters: Vec<MasterEntry>,
    /// The nodes.
    #[serde(default)]
    pub nodes: Vec<NodeEntry>,
    /// For clients that know one server only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointEntry>,
    /// The folder that holds the file.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Why no cluster was found.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFileError {
    /// Nothing says which cluster.
    #[error(
        "no cluster is known: {} does not exist. Start a local one with `quorate up`, or name one \
         with --cluster DIR or QUORATE_CLUSTER", .0.display()
    )]
    NoCurrent(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not a cluster file.
    #[error("{} is not a cluster file: {error}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

impl ClusterFile {
    /// Reads the file, or the `cluster.json` in the folder, at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn load(path: &Path) -> Result<Self, ClusterFileError> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let text = std::fs::read(&path)
            .map_err(|error| ClusterFileError::Io { path: path.clone(), error })?;
        let mut file: Self = serde_json::from_slice(&text)
            .map_err(|error| ClusterFileError::Malformed { path: path.clone(), error })?;
        file.folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(file)
    }

    /// Writes `cluster.json` into `folder`; a reader sees the old file or the new one whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf, ClusterFileError> {
        let path = folder.join(FILE_NAME);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| ClusterFileError::Malformed { path: path.clone(), error })?;
        let temporary = folder.join(format!(".{FILE_NAME}.{}", std::process::id()));
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| ClusterFileError::Io { path: path.clone(), error })?;
        Ok(path)
    }

    /// Finds the cluster: the `--cluster` option, else QUORATE_CLUSTER, else the last `up`.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read.
    pub fn discover(option: Option<&Path>) -> Result<Self, ClusterFileError> {
        let env = std::env::var_os("QUORATE_CLUSTER").filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(path) = option.map(Path::to_owned).or(env) {
            return Self::load(&path);
        }
        let current = current_link();
        match std::fs::read_to_string(&current) {
            Ok(folder) => Self::load(Path::new(folder.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ClusterFileError::NoCurrent(current))
            }
            Err(error) => Err(ClusterFileError::Io { path: current, error }),
        }
    }

    /// Makes the cluster in `folder` the one that commands use by default.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn make_current(folder: &Path) -> Result<(), ClusterFileError> {
        let current = current_link();
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let parent = current.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&current, format!("{}\n", folder.display())))
            .map_err(|error| ClusterFileError::Io { path: current.clone(), error })
    }

    /// Forgets the default cluster when it is the one in `folder`.
    pub fn forget_current(folder: &Path) {
        let current = current_link();
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let is_it = std::fs::read_to_string(&current)
            .is_ok_and(|text| Path::new(text.trim()) == folder.as_path());
        if is_it && let Err(error) = std::fs::remove_file(&current) {
            tracing::warn!(%error, path = %current.display(), "cannot forget the cluster");
        }
    }

    /// The masters' client URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.masters.iter().map(|master| master.url.clone()).collect()
    }

    /// The administrator's certificates in `pki/` beside the file; `None` for plain http.
    ///
    /// # Errors
    /// When they are needed and cannot be read.
    pub fn tls(&self) -> io::Result<Option<Tls>> {
        if self.masters.iter().any(|master| master.url.starts_with("https:")) {
            Tls::load(&self.folder.join("pki"), "admin").map(Some)
        } else {
            Ok(None)
        }
    }
}

/// A file that holds the folder of the last `up`.
fn current_link() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    state.unwrap_or_else(|| home().join(".local/state")).join("quorate/current")
}

#[cfg(test)]
#[path = "cluster_file_test.rs"]
mod tests;
