//! A local cluster: real masters and agents as background processes of this machine. One
//! mechanism for everybody who starts or stops them.

pub mod docker;
pub mod file;
pub mod kubeconfig;
pub mod layout;
pub mod pki;
pub mod process;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{CliError, Result};
use file::ClusterSpec;
use process::Target;

/// Time between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);

/// A local cluster and its folder.
#[derive(Debug)]
pub struct LocalCluster {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// What it consists of.
    pub spec: ClusterSpec,
}

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The master with this index.
    Master(usize),
    /// The node with this index.
    Node(usize),
    /// The address that fails over between the masters.
    Endpoint,
}

/// One process of a cluster as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data_dir: PathBuf,
    /// Process id, when it runs.
    pub pid: Option<u32>,
}

impl Member {
    /// Its folder: data, log and process id.
    #[must_use]
    pub fn home(&self) -> &Path {
        home(&self.data_dir)
    }

    /// Where it logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home().join("log")
    }
}

/// Held while a cluster is started or stopped, so that two commands do not mix.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<std::fs::File>);

impl LocalCluster {
    /// Opens a cluster that was made before.
    ///
    /// # Errors
    /// When the folder has no cluster file.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), spec: ClusterSpec::load(dir)? })
    }

    /// Locks the folder.
    ///
    /// # Errors
    /// When another command holds it.
    pub fn lock(dir: &Path) -> Result<Lock> {
        let path = dir.join(".lock");
        let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file =
            open.map_err(|e| CliError::local(format!("cannot open {}: {e}", path.display())))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map(Lock).map_err(|_| {
            let dir = dir.display();
            CliError::local(format!("another `quorate up` or `quorate down` works on {dir}"))
        })
    }

    /// All processes, masters first.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let member = |role, name: &str, pid, data_dir: &Path| Member {
            role,
            name: name.to_owned(),
            data_dir: data_dir.to_owned(),
            pid: process::find(pid, data_dir),
        };
        let masters = self.spec.masters.iter().enumerate();
        let masters = masters.map(|(i, m)| member(Role::Master(i), &m.name, m.pid, &m.data_dir));
        let nodes = self.spec.nodes.iter().enumerate();
        let nodes = nodes.map(|(i, n)| member(Role::Node(i), &n.name, n.pid, &n.data_dir));
        let endpoint = self.spec.endpoint.iter();
        let endpoint = endpoint.map(|e| member(Role::Endpoint, "endpoint", e.pid, &e.data_dir));
        masters.chain(nodes).chain(endpoint).collect()
    }

    /// Starts a process in the background and records its id. The caller may keep the child
    /// to notice its end, or drop it: it runs on.
    ///
    /// # Errors
    /// When it cannot be started or the file not be written.
    pub fn spawn(&mut self, role: Role) -> Result<Child> {
        let unknown = || CliError::local("no such member of the cluster");
        let (args, data_dir) = match role {
            Role::Master(i) => {
                let master = self.spec.masters.get(i).ok_or_else(unknown)?;
                (layout::master_args(&self.dir, &self.spec, master)?, &master.data_dir)
            }
            Role::Node(i) => {
                let node = self.spec.nodes.get(i).ok_or_else(unknown)?;
                (layout::agent_args(&self.dir, &self.spec, node), &node.data_dir)
            }
            Role::Endpoint => {
                let endpoint = self.spec.endpoint.as_ref().ok_or_else(unknown)?;
                (layout::endpoint_args(&self.dir, &self.spec, endpoint)?, &endpoint.data_dir)
            }
        };
        let child = process::spawn(&args, &home(data_dir).join("log"))?;
        let pid = child.id();
        std::fs::write(home(data_dir).join("pid"), format!("{pid}\n"))?;
        match role {
            Role::Master(i) => self.spec.masters[i].pid = pid,
            Role::Node(i) => self.spec.nodes[i].pid = pid,
            Role::Endpoint => self.spec.endpoint.iter_mut().for_each(|e| e.pid = pid),
        }
        self.spec.save(&self.dir)?;
        Ok(child)
    }

    /// Stops the processes, politely first. Returns the names of those that had to be killed.
    ///
    /// # Errors
    /// When one cannot be stopped.
    pub async fn stop(members: &[Member]) -> Result<Vec<String>> {
        let running = members.iter().filter_map(|member| {
            let (name, data_dir) = (member.name.as_str(), member.data_dir.as_path());
            Some(Target { name, pid: member.pid?, data_dir })
        });
        process::stop(&running.collect::<Vec<_>>(), GRACE).await
    }
}

fn home(data_dir: &Path) -> &Path {
    data_dir.parent().unwrap_or(data_dir)
}

/// Where `up` puts a cluster when nobody says.
#[must_use]
pub fn default_dir() -> PathBuf {
    file::state_home().join("local")
}

/// An absolute path, as the daemons' command lines have it.
///
/// # Errors
/// When the present folder is unknown.
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    // An existing folder may be reached through links: its true name is the one to compare.
    std::fs::canonicalize(dir)
        .or_else(|_| std::path::absolute(dir))
        .map_err(|e| CliError::local(format!("{}: {e}", dir.display())))
}

/// Is there nothing in the folder (or no folder)?
///
/// # Errors
/// When it cannot be read.
pub fn is_empty(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        // A lock may be left of a command that refused.
        Ok(entries) => Ok(entries.flatten().all(|entry| entry.file_name() == ".lock")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(CliError::local(format!("cannot read {}: {e}", dir.display()))),
    }
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod tests;
