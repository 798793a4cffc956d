//! How programs in a pod reach the masters: a token of the pod's service account, the authority's
//! certificate and the namespace, in the folder where client libraries look for them. (The
//! address is in the environment, see `env.rs`.)
//!
//! In Kubernetes admission writes this volume into every pod; here the node adds it, so that
//! objects do not carry it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_proto::v1::nodes_client::NodesClient;
use tokio::sync::watch;
use tonic::transport::Channel;
use tracing::warn;

use super::volumes;

/// Where client libraries look.
pub const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The ConfigMap with the authority's certificate, in every namespace.
pub const ROOT_CA: &str = "kube-root-ca.crt";
const VOLUME: &str = "kube-api-access";
/// Kubernetes' lifetime for these tokens, and its default for others.
const SECONDS: i64 = 3607;
const DEFAULT_SECONDS: i64 = 3600;
/// A token is renewed when so much of its life is over.
const RENEW_PERCENT: i64 = 80;
/// For one question to a master.
const LIMIT: Duration = Duration::from_secs(5);

/// The pod with what its object leaves out, unless it or its account does not want it.
#[must_use]
pub fn complete(pod: &Arc<Pod>) -> Arc<Pod> {
    let Some(spec) = &pod.spec else { return Arc::clone(pod) };
    let has = |mounts: &Option<Vec<VolumeMount>>| {
        mounts.iter().flatten().any(|mount| mount.mount_path.trim_end_matches('/') == FOLDER)
    };
    let taken = spec.volumes.iter().flatten().any(|volume| volume.name == VOLUME);
    if spec.automount_service_account_token == Some(false) || taken {
        return Arc::clone(pod);
    }
    let mut pod = Pod::clone(pod);
    let spec = pod.spec.get_or_insert_default();
    spec.volumes.get_or_insert_default().push(volume());
    let inits = spec.init_containers.iter_mut().flatten();
    let all = inits.chain(&mut spec.containers).map(|container| &mut container.volume_mounts);
    let added = spec.ephemeral_containers.iter_mut().flatten();
    for mounts in all.chain(added.map(|container| &mut container.volume_mounts)) {
        if !has(mounts) {
            mounts.get_or_insert_default().push(VolumeMount {
                name: VOLUME.to_owned(),
                mount_path: FOLDER.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
    }
    Arc::new(pod)
}

fn volume() -> Volume {
    let token = ServiceAccountTokenProjection {
        expiration_seconds: Some(SECONDS),
        path: "token".to_owned(),
        ..ServiceAccountTokenProjection::default()
    };
    let (key, path) = ("ca.crt".to_owned(), "ca.crt".to_owned());
    let key = KeyToPath { key, path, ..KeyToPath::default() };
    let authority =
        ConfigMapProjection { name: ROOT_CA.to_owned(), items: Some(vec![key]), optional: None };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: None,
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name: VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), ..Default::default() }),
        ..Volume::default()
    }
}

/// Does it have the volume that only the node knows of?
#[must_use]
pub fn is_completed(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| volume.name == VOLUME)
}

/// Tokens, or why there is none, by the file that they belong into: name of the volume, path in it.
pub type Files = BTreeMap<(String, String), Result<String, String>>;

#[derive(Clone)]
struct Kept {
    token: String,
    renew_at: Timestamp,
    expires: Timestamp,
}

/// The tokens of the node's pods: asked for when they are needed, and again in time.
pub struct Tokens {
    /// To a master; none while there is none.
    channel: watch::Receiver<Option<Channel>>,
    /// By the pod's uid, audience and lifetime.
    kept: Mutex<HashMap<(String, String, i64), Kept>>,
}

impl Tokens {
    /// None yet.
    #[must_use]
    pub fn new(channel: watch::Receiver<Option<Channel>>) -> Self {
        Self { channel, kept: Mutex::default() }
    }

    /// The tokens that the pod's volumes want. There is none where no master gives one, and none
    /// from before is good.
    pub async fn of_pod(&self, data_dir: &Path, pod: &Pod) -> Files {
        let mut files = Files::new();
        for (volume, wanted) in wanted(pod) {
            let token = self.get(pod, wanted).await;
            // One that the node had before it was started again; masters say if it is good.
            let kept = |error| on_disk(data_dir, pod, volume, &wanted.path).ok_or(error);
            let token = token.or_else(kept);
            files.insert((volume.to_owned(), wanted.path.clone()), token);
        }
        files
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.kept.lock().retain(|(of, _, _), _| of != uid);
    }

    async fn get(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let audience = wanted.audience.clone().unwrap_or_default();
        let seconds = wanted.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (uid, audience, seconds);
        let now = quorate_objects::time::timestamp();
        let kept = self.kept.lock().get(&key).cloned();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.renew_at) {
            return Ok(kept.token.clone());
        }
        match self.ask(pod, &key.1, seconds).await {
            Ok(fresh) => {
                let token = fresh.token.clone();
                self.kept.lock().insert(key, fresh);
                Ok(token)
            }
            Err(error) => match kept.filter(|kept| now < kept.expires) {
                Some(kept) => {
                    warn!(error, "cannot renew a token yet");
                    Ok(kept.token)
                }
                None => Err(error),
            },
        }
    }

    async fn ask(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<Kept, String> {
        let channel = self.channel.borrow().clone();
        let channel = channel.ok_or("no master answers that could give a token")?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let request = v1::CreateTokenRequest {
            namespace: text(&pod.metadata.namespace),
            pod: text(&pod.metadata.name),
            pod_uid: text(&pod.metadata.uid),
            audiences: Some(audience.to_owned()).filter(|a| !a.is_empty()).into_iter().collect(),
            expiration_seconds: seconds,
        };
        let mut client = NodesClient::new(channel);
        let answer = tokio::time::timeout(LIMIT, client.create_token(request)).await;
        let answer = answer.map_err(|_| format!("no token within {LIMIT:?}"))?;
        let answer = answer.map_err(|e| format!("no token: {}", e.message()))?.into_inner();
        let now = quorate_objects::time::timestamp();
        let expires = Timestamp::from_second(answer.expires).unwrap_or(now);
        let life = expires.duration_since(now).as_secs().max(0);
        let renew = SignedDuration::from_secs(life * RENEW_PERCENT / 100);
        let renew_at = now.saturating_add(renew).unwrap_or(now);
        Ok(Kept { token: answer.token, renew_at, expires })
    }
}

/// The tokens that a pod's volumes want, each with the name of its volume.
fn wanted(pod: &Pod) -> impl Iterator<Item = (&str, &ServiceAccountTokenProjection)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
        tokens.map(|token| (volume.name.as_str(), token))
    })
}

fn on_disk(data_dir: &Path, pod: &Pod, volume: &str, path: &str) -> Option<String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let file = volumes::pod_dir(data_dir, uid).join("volumes").join(volume).join(path);
    fs::read_to_string(file).ok()
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
