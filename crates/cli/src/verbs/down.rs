//! `quorate down`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use quorate_client::ClusterFile;

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::local::kubeconfig::KUBECONFIG;
use crate::local::{self, LocalCluster};

/// Stops a local cluster: its processes, and the containers and networks it made. Removes its
/// data, and with that the volumes of its claims, unless told otherwise.
#[derive(Args, Debug)]
pub struct Down {
    /// Folder of the cluster [default: that of the last `up`]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the data: `quorate up` goes on with it
    #[arg(long)]
    keep_data: bool,
}

impl Down {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let Some(dir) = self.dir(context)? else {
            eprintln!("No local cluster is known: nothing to stop.");
            return Ok(ExitCode::SUCCESS);
        };
        let dir = local::absolute(&dir)?;
        if !dir.join(local::file::FILE).exists() {
            let missing = !dir.exists();
            ClusterFile::forget_current(&dir);
            if missing {
                eprintln!("{} does not exist: nothing to stop.", dir.display());
                return Ok(ExitCode::SUCCESS);
            }
            return Err(CliError::local(format!(
                "{} has no {}: it is not the folder of a cluster",
                dir.display(),
                local::file::FILE
            )));
        }
        let lock = LocalCluster::lock(&dir)?;
        let cluster = LocalCluster::open(&dir)?;
        stop(&cluster).await?;
        let purged = purge(context, &cluster, !self.keep_data).await;
        if purged.is_ok() && !self.keep_data {
            remove(&cluster)?;
            eprintln!("Removed {}", dir.display());
        }
        if !self.keep_data {
            ClusterFile::forget_current(&dir);
        }
        drop(lock);
        purged?;
        if self.keep_data {
            let dir = dir.display();
            eprintln!("The data stays in {dir}: `quorate up --dir {dir}` goes on with it.");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn dir(&self, context: &Context) -> Result<Option<PathBuf>> {
        if let Some(dir) = self.dir.clone().or_else(|| context.globals.cluster.clone()) {
            let file = dir.is_file();
            let folder = dir.parent().unwrap_or(Path::new(".")).to_owned();
            return Ok(Some(if file { folder } else { dir }));
        }
        match ClusterFile::discover(None) {
            Ok(file) => Ok(Some(file.folder)),
            Err(quorate_client::ClusterFileError::NoCurrent(_)) => {
                Ok(Some(local::default_dir()).filter(|dir| dir.exists()))
            }
            // The folder of the last `up` was removed by hand.
            Err(quorate_client::ClusterFileError::Io { path, .. }) => {
                Ok(path.parent().map(Path::to_owned))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn stop(cluster: &LocalCluster) -> Result<()> {
    let running: Vec<_> =
        cluster.members().into_iter().filter(|member| member.pid.is_some()).collect();
    if running.is_empty() {
        eprintln!("No process of the cluster is running.");
        return Ok(());
    }
    let names: Vec<&str> = running.iter().map(|member| member.name.as_str()).collect();
    eprintln!("Stopping {}", names.join(", "));
    let killed = LocalCluster::stop(&running).await?;
    if !killed.is_empty() {
        let grace = local::GRACE.as_secs();
        eprintln!("Did not end within {grace} s and were killed: {}", killed.join(", "));
    }
    Ok(())
}

async fn purge(context: &Context, cluster: &LocalCluster, volumes: bool) -> Result<()> {
    let spec = &cluster.spec;
    if spec.nodes.iter().all(|node| node.hollow > 0) {
        return Ok(());
    }
    let docker = local::docker::address(Some(&spec.docker));
    let purge = (context.host.purge)(docker.clone(), spec.cluster_id.clone(), volumes);
    match purge.await {
        Ok(purged) => {
            let (containers, networks) = (purged.containers, purged.networks);
            let volumes = match purged.volumes {
                0 => String::new(),
                count => format!(", {count} volumes"),
            };
            eprintln!("Removed {containers} containers and {networks} networks{volumes}");
            Ok(())
        }
        Err(error) => Err(CliError::local(format!(
            "the processes are stopped, but containers of the cluster may be left on {docker}: \
             {error}\n  run `quorate down --dir {}` again when Docker answers",
            cluster.dir.display()
        ))),
    }
}

/// Removes what `up` made, and the folder when nothing else is in it.
fn remove(cluster: &LocalCluster) -> Result<()> {
    let dir = &cluster.dir;
    let failed = |path: &Path, e: std::io::Error| {
        CliError::local(format!("cannot remove {}: {e}", path.display()))
    };
    let members = cluster.members().into_iter().map(|member| member.home().to_owned());
    for folder in members.chain([dir.join("pki")]) {
        // A file that was edited by hand must not make us remove anything outside.
        if folder.starts_with(dir) && folder != *dir && folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|e| failed(&folder, e))?;
        }
    }
    // The cluster file goes last: until then `down` can be repeated.
    for name in [KUBECONFIG, local::file::FILE, ".lock"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(&dir.join(name), e));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            eprintln!("{} has other files too; they stay", dir.display());
            Ok(())
        }
        Err(e) => Err(failed(dir, e)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::layout;

    #[test]
    fn only_what_up_made_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cluster");
        let wanted = layout::Wanted {
            masters: 2,
            nodes: 1,
            hollow: 0,
            port_base: 7000,
            advertise_base: None,
            insecure: true,
            docker: String::new(),
            pod_cidr: None,
            service_cidr: None,
            rebalance_max_moves: 0,
        };
        let mut spec = layout::plan(&dir, &wanted);
        let outside = parent.path().join("outside");
        spec.masters[1].data_dir = outside.join("data");
        for folder in [&dir.join("m1"), &dir.join("n1"), &outside] {
            std::fs::create_dir_all(folder).unwrap();
        }
        spec.save(&dir).unwrap();
        let cluster = LocalCluster { dir: dir.clone(), spec };
        remove(&cluster).unwrap();
        assert!(!dir.exists());
        assert!(outside.exists());
    }
}
