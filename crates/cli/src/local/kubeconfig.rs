//! What kubectl and other Kubernetes clients have to know about a cluster.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_client::ClusterFile;
use serde_json::{Value, json};

use crate::error::{CliError, Result};

/// Name of the file beside `cluster.json`.
pub const KUBECONFIG: &str = "kubeconfig";
/// Name of the context that fails over.
const MAIN: &str = "quorate";
const USER: &str = "admin";

/// A kubeconfig. Its current context is the cluster's endpoint, or `server` when that is given,
/// or the first master when there is neither; each master has a context of its own.
///
/// # Errors
/// When the certificates cannot be read, or no server is known.
pub fn of(file: &ClusterFile, server: Option<&str>) -> Result<Value> {
    let tls = file.tls().map_err(|error| CliError::local(error.to_string()))?;
    let encode = |text: &str| STANDARD.encode(text);
    let endpoint = file.endpoint.as_ref().map(|endpoint| endpoint.url.as_str());
    let first = file.masters.first().map(|master| master.url.as_str());
    let main = server.or(endpoint).or(first);
    let main = main.ok_or_else(|| CliError::local("the cluster's file names no master"))?;
    let mut servers = vec![(MAIN.to_owned(), main)];
    servers.extend(file.masters.iter().map(|m| (format!("{MAIN}-{}", m.name), m.url.as_str())));
    let cluster = |(name, url): &(String, &str)| {
        let mut cluster = json!({"server": url});
        if let Some(tls) = &tls {
            cluster["certificate-authority-data"] = encode(&tls.ca).into();
        }
        json!({"name": name, "cluster": cluster})
    };
    let context = |(name, _): &(String, &str)| json!({"name": name, "context": {"cluster": name, "user": USER}});
    let user = tls.as_ref().map_or_else(
        || json!({}),
        |tls| {
            json!({
                "client-certificate-data": encode(&tls.cert), "client-key-data": encode(&tls.key),
            })
        },
    );
    Ok(json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": MAIN,
        "clusters": servers.iter().map(cluster).collect::<Vec<_>>(),
        "contexts": servers.iter().map(context).collect::<Vec<_>>(),
        "users": [{"name": USER, "user": user}],
    }))
}

#[cfg(test)]
#[path = "kubeconfig_test.rs"]
mod tests;
