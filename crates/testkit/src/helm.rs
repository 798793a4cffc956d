//! Real Helm against a test cluster.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cluster::TestCluster;
use crate::process::{Output, run};

/// The version that `deploy/install-helm.sh` installs.
const VERSION: &str = "3.17.3";

/// Helm, talking to one cluster.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// The one that `deploy/install-helm.sh` has installed, or that QUORATE_HELM names.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(cluster: &TestCluster) -> Result<Self> {
        let program = match std::env::var_os("QUORATE_HELM") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(std::env::var_os("HOME").context("no HOME")?)
                .join(format!(".cache/quorate-helm/helm-{VERSION}")),
        };
        ensure!(program.is_file(), "no {}: run deploy/install-helm.sh", program.display());
        let home = cluster.dir().join("helm-home");
        std::fs::create_dir_all(&home)?;
        Ok(Self { program, kubeconfig: cluster.dir().join("kubeconfig"), home })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be run, or does not end.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        let env: [(&str, &OsStr); 2] =
            [("KUBECONFIG", self.kubeconfig.as_ref()), ("HOME", self.home.as_ref())];
        run(&self.program, args, &env, None).await
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args).await?.ok()
    }
}
