//! What runs on the nodes of a cluster under test, and how it changes meanwhile.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use quorate_client::{Client, DeleteOptions, ListOptions, PatchType};
use quorate_objects::{Typed, pod};
use quorate_testkit::image::WEB_IMAGE;
use quorate_testkit::load::Load;
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::evidence::{Container, JobCount};
use crate::observer;
use crate::target::Target;
use crate::workload::{WITH_CONTAINERS, deployment, job, service, stateful_set};

/// Pods that nobody changes while the run goes on.
const STEADY: (&str, u32) = ("steady", 2);
/// Where they are asked, on every node.
const PORT: u16 = 30_481;
/// Pods whose number changes all the time.
const CHURN: &str = "churn";
/// Pods with names of their own, which are deleted now and then.
pub(crate) const STATEFUL: &str = "stateful";
/// Of all Jobs and their pods.
const JOBS: &str = "chaos=job";

/// Makes everything, and waits until it is there. Does nothing to what is there already.
///
/// # Errors
/// When it does not come up.
pub(super) async fn deploy(target: &Target) -> Result<()> {
    let cluster = target.cluster();
    // Beside real nodes, hollow ones get what nobody asks anything of.
    let place = if target.docker { WITH_CONTAINERS } else { "" };
    cluster.apply(&deployment(STEADY.0, WEB_IMAGE, STEADY.1, place)).await?;
    cluster.apply(&deployment(CHURN, WEB_IMAGE, 1, "")).await?;
    if target.docker {
        cluster.build_web_image(WEB_IMAGE).await?;
        cluster.apply(&service(STEADY.0, PORT)).await?;
        cluster.apply(&stateful_set(STATEFUL, WEB_IMAGE, 2)).await?;
        cluster.wait_pods_ready(&format!("app={STATEFUL}"), 2).await?;
    }
    cluster.wait_pods_ready(&format!("app={}", STEADY.0), STEADY.1 as usize).await?;
    Ok(())
}

/// Requests to the service, when there are pods that answer.
///
/// # Errors
/// When nobody knows where the nodes are.
pub(super) fn traffic(target: &Target) -> Result<Option<Load>> {
    if !target.docker {
        return Ok(None);
    }
    let addresses = target.cluster().node_addresses(PORT)?;
    let pause = std::time::Duration::from_millis(50);
    Ok(Some(Load::start(addresses, "/", "it works", 2, pause)))
}

/// The containers that nobody changes; `None` without nodes.
pub(super) async fn steady(target: &Target) -> Option<Vec<Container>> {
    if !target.docker {
        return None;
    }
    let mut containers = observer::all_containers(target).await.ok()?;
    containers.retain(|container| container.pod.contains(&format!("/{}-", STEADY.0)));
    Some(containers)
}

/// Changes the number of pods of a Deployment, deletes one of a StatefulSet, begins a Job: what
/// comes of it is seen by watches. During a fault each may fail, and nobody counts that.
pub(super) async fn churn(target: &Target, random: &mut StdRng, name: &str) {
    if target.nodes.is_empty() || !target.is_ours() {
        return;
    }
    let replicas = random.random_range(0..5);
    let (delete, begin) = (random.random_bool(0.4), random.random_bool(0.5));
    let (ordinal, completions) = (random.random_range(0..2), random.random_range(1..4));
    let Ok(client) = target.client(2) else { return };
    let patch = serde_json::json!({"spec": {"replicas": replicas}});
    let (kind, options) = (<Deployment as Typed>::kind(), Default::default());
    let _ = client.patch(kind, "default", CHURN, PatchType::Merge, &patch, &options).await;
    if !target.docker {
        return;
    }
    if delete {
        let (name, options) = (format!("{STATEFUL}-{ordinal}"), DeleteOptions::default());
        let _ = client.delete(<Pod as Typed>::kind(), "default", &name, &options).await;
    }
    if begin {
        let _ = target.cluster().apply(&job(name, WEB_IMAGE, completions)).await;
    }
}

/// Is there exactly what was asked for?
///
/// # Errors
/// What is missing, or too much.
pub(super) async fn settled(target: &Target) -> Result<()> {
    if target.nodes.is_empty() {
        return Ok(());
    }
    let client = target.client(0)?;
    let deployments: Vec<Deployment> = client.list_as(&ListOptions::default()).await?;
    let stateful: Vec<StatefulSet> = client.list_as(&ListOptions::default()).await?;
    let deployed = deployments.iter().filter_map(|d| d.spec.replicas);
    let named = stateful.iter().filter_map(|s| s.spec.replicas);
    if !target.is_ours() {
        let short = deployments.iter().find(|d| d.status.as_ref().is_none_or(is_short));
        let name = short.and_then(|d| d.metadata.name.as_deref()).unwrap_or_default();
        ensure!(short.is_none(), "the Deployment {name} has fewer pods available than it wants");
        return Ok(());
    }
    let wanted = usize::try_from(deployed.chain(named).sum::<i32>()).unwrap_or(0);
    let all: Vec<Pod> = client.list_as(&ListOptions::default()).await?;
    let is_of_job = |p: &&Pod| p.metadata.labels.iter().flatten().any(|(key, _)| key == "chaos");
    let pods: Vec<&Pod> = all.iter().filter(|p| !is_of_job(p)).collect();
    let ready = pods.iter().filter(|p| !pod::is_deleting(p) && pod::is_ready(p)).count();
    ensure!(
        ready == wanted && pods.len() == wanted,
        "{ready} ready of {} pods, {wanted} wanted",
        pods.len()
    );
    if !target.docker {
        return Ok(());
    }
    let containers = observer::all_containers(target).await?;
    let alive = |c: &&Container| all.iter().any(|p| p.metadata.uid.as_ref() == Some(&c.pod_uid));
    let strangers = containers.iter().filter(|container| !alive(container)).count();
    ensure!(strangers == 0, "{strangers} containers of pods that are gone");
    Ok(())
}

fn is_short(status: &DeploymentStatus) -> bool {
    status.unavailable_replicas.is_some_and(|missing| missing > 0)
}

/// What every Job counts.
///
/// # Errors
/// When one is not complete yet.
pub(super) async fn jobs(target: &Target) -> Result<Vec<JobCount>> {
    let options = ListOptions { labels: JOBS.to_owned(), ..ListOptions::default() };
    let client = target.client(0)?;
    let jobs: Vec<Job> = client.list_as(&options).await?;
    let pods: Vec<Pod> = client.list_as(&options).await?;
    jobs.iter().map(|job| count(job, &pods)).collect()
}

fn count(job: &Job, pods: &[Pod]) -> Result<JobCount> {
    let name = job.metadata.name.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let complete = conditions.iter().any(|c| c.type_ == "Complete" && c.status == "True");
    ensure!(complete, "the Job {name} is not complete");
    let number = |number: Option<i32>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
    let is_own = |p: &&Pod| {
        p.metadata.owner_references.iter().flatten().any(|owner| owner.name == name)
            && p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded")
    };
    let succeeded = pods.iter().filter(is_own).count() as u64;
    let wanted = number(job.spec.as_ref().and_then(|spec| spec.completions));
    Ok(JobCount { name, wanted, counted: number(status.succeeded), succeeded })
}

/// Removes all Jobs with their pods.
///
/// # Errors
/// When one cannot be removed.
pub(super) async fn remove_jobs(client: &Client) -> Result<()> {
    let options = ListOptions { labels: JOBS.to_owned(), ..ListOptions::default() };
    let kind = <Job as Typed>::kind();
    for job in client.list(kind, &options).await?.items {
        let how = DeleteOptions::default();
        match client.delete(kind, &job.namespace, &job.name, &how).await {
            Err(error) if !error.is_not_found() => {
                return Err(error).with_context(|| format!("deleting the Job {}", job.name));
            }
            _ => {}
        }
    }
    Ok(())
}
