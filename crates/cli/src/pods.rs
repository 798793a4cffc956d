//! Pods and containers as command lines name them.

use std::time::Duration;

use quorate_client::{Client, Object};
use quorate_objects::Kind;
use tokio::time::{Instant, sleep};

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::{json, resource};

const POLL: Duration = Duration::from_millis(100);
/// Names a pod's default container, when it has several.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod that `POD`, `pod/NAME` or `TYPE/NAME` means; of several the one that is most likely
/// to be of use.
pub async fn one(context: &Context, client: &Client, what: &str) -> Result<Object> {
    let (kind, object) = named(context, client, what).await?;
    if kind.kind == "Pod" {
        return Ok(object);
    }
    let mut found = of(client, kind, &object).await?;
    found.sort_by_key(|pod| {
        let running = json::text(&pod.value, "/status/phase") == "Running";
        (!running, !json::condition(&pod.value, "Ready"))
    });
    let total = found.len();
    let pod = found.into_iter().next().ok_or_else(|| {
        CliError::local(format!("no pods of {} yet", resource::reference(kind, &object.name)))
    })?;
    if total > 1 {
        eprintln!("Found {total} pods, using pod/{}", pod.name);
    }
    Ok(pod)
}

/// All pods that it means.
pub async fn all_of(context: &Context, client: &Client, what: &str) -> Result<Vec<Object>> {
    let (kind, object) = named(context, client, what).await?;
    if kind.kind == "Pod" { Ok(vec![object]) } else { of(client, kind, &object).await }
}

async fn named(context: &Context, client: &Client, what: &str) -> Result<(&'static Kind, Object)> {
    let (kind, name) = match what.split_once('/') {
        Some((kind, name)) => (resource::by_name(kind)?, name),
        None => (resource::by_name("pods")?, what),
    };
    Ok((kind, client.get(kind, context.namespace(), name).await?))
}

/// Pods of a deployment, replica set, job or service.
async fn of(client: &Client, kind: &Kind, owner: &Object) -> Result<Vec<Object>> {
    let pointer =
        if kind.kind == "Service" { "/spec/selector" } else { "/spec/selector/matchLabels" };
    let labels = json::pairs(&owner.value, pointer, "=").join(",");
    if labels.is_empty() {
        return Err(CliError::local(format!("cannot find pods of a {}", kind.singular)));
    }
    let selectors = Selectors { selector: Some(labels), field_selector: None };
    let pods = resource::by_name("pods")?;
    Ok(list_all(client, pods, selectors.options(&owner.namespace)).await?.1)
}

/// Names of all containers of a pod.
pub fn containers(pod: &Object) -> Vec<String> {
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .iter()
        .flat_map(|pointer| json::list(&pod.value, pointer))
        .map(|container| json::text(container, "/name").to_owned())
        .collect()
}

/// The container that is wanted, or the pod's default, which is then said.
pub fn container(pod: &Object, wanted: Option<&str>) -> Result<String> {
    let all = containers(pod);
    if let Some(name) = wanted {
        if all.iter().any(|known| known == name) {
            return Ok(name.to_owned());
        }
        return Err(CliError::local(format!(
            "container {name} is not valid for pod {}: it has {}",
            pod.name,
            all.join(", ")
        )));
    }
    let main = json::list(&pod.value, "/spec/containers");
    let annotated =
        pod.value.pointer("/metadata/annotations").and_then(|a| a.get(DEFAULT_CONTAINER));
    if let Some(name) = annotated.and_then(|name| name.as_str()) {
        return Ok(name.to_owned());
    }
    let name = main.first().map(|c| json::text(c, "/name").to_owned()).unwrap_or_default();
    if main.len() > 1 {
        eprintln!("Defaulted container {name:?} out of: {}", all.join(", "));
    }
    Ok(name)
}

/// Waits until a container has begun to run, whether it has ended since or not.
pub async fn wait_begun(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    limit: Duration,
) -> Result<Object> {
    let kind = resource::by_name("pods")?;
    let deadline = Instant::now() + limit;
    loop {
        let object = client.get(kind, namespace, pod).await?;
        let statuses = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
        let mut statuses =
            statuses.iter().flat_map(|list| json::list(&object.value, &format!("/status/{list}")));
        let status = statuses.find(|status| json::text(status, "/name") == container);
        let begun = status.is_some_and(|status| {
            status.pointer("/state/running").is_some()
                || status.pointer("/state/terminated").is_some()
                || status.pointer("/lastState/terminated").is_some()
        });
        if begun || Instant::now() >= deadline {
            return Ok(object);
        }
        sleep(POLL).await;
    }
}
