//! Debian's etcdctl against a cluster with TLS.

use std::ffi::OsStr;

use anyhow::{Context, Result};

use crate::cluster::TestCluster;
use crate::process::{Output, run};

/// Runs it against the first master, with the certificate `pki/CERTIFICATE.crt` of the cluster.
///
/// # Errors
/// When it cannot be run, or does not end; not when it fails.
pub async fn etcdctl(cluster: &TestCluster, certificate: &str, args: &[&str]) -> Result<Output> {
    let url = cluster.file()?.masters.first().context("a master")?.url.clone();
    let pki = cluster.dir().join("pki");
    let file = |name: String| pki.join(name).display().to_string();
    let (ca, cert) = (file("ca.crt".into()), file(format!("{certificate}.crt")));
    let key = file(format!("{certificate}.key"));
    let flags = ["--endpoints", &url, "--cacert", &ca, "--cert", &cert, "--key", &key];
    let env = [("ETCDCTL_API", OsStr::new("3"))];
    run("etcdctl", &[&flags[..], args].concat(), &env, None)
        .await
        .context("etcdctl is in Debian's package etcd-client; deploy/install-deps.sh installs it")
}
