//! Debian's etcdctl.

use std::ffi::OsStr;

use anyhow::{Context, Result};

use crate::process::{Output, run};

/// The program, and what it needs in its environment.
#[must_use]
pub fn program() -> (&'static str, [(&'static str, &'static OsStr); 1]) {
    ("etcdctl", [("ETCDCTL_API", OsStr::new("3"))])
}

/// Runs it against `endpoints`, which are URLs with commas between them.
///
/// # Errors
/// When it cannot be run, or does not end; not when it fails.
pub async fn etcdctl(endpoints: &str, args: &[&str], input: Option<&str>) -> Result<Output> {
    let (program, env) = program();
    let args = [&["--endpoints", endpoints, "--command-timeout", "20s"], args].concat();
    run(program, &args, &env, input)
        .await
        .context("etcdctl is in Debian's package etcd-client; deploy/install-deps.sh installs it")
}
