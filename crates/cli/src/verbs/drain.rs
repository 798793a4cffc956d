//! `quorate drain`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, DeleteOptions, ListOptions, Object};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::context::{Context, list_all};
use crate::error::{CliError, Result};
use crate::json::{list, text};
use crate::output::print;
use crate::verbs::cordon;
use crate::{duration, resource};

/// Between attempts to evict a pod that a disruption budget keeps.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks whether a pod is gone.
const POLL: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Empties nodes, as disruption budgets allow.
#[derive(Args, Debug)]
pub struct Drain {
    /// Names of nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Leave pods of DaemonSets where they are
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Evict pods although their emptyDir volumes will be lost
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Evict pods although nobody will replace them
    #[arg(long)]
    force: bool,
    /// Seconds pods get to stop [default: what they say]
    #[arg(long)]
    grace_period: Option<u32>,
    /// How long; 0: as long as it takes
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    /// Only pods with these labels
    #[arg(long, value_name = "LABELS")]
    pod_selector: Option<String>,
    /// Delete pods past their disruption budgets
    #[arg(long)]
    disable_eviction: bool,
}

/// What is done about a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Evict,
    Skip,
    /// Why it cannot be evicted; the flag that allows it.
    Refuse(&'static str),
}

impl Drain {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        let limit = if self.timeout.is_zero() { LONGEST } else { self.timeout };
        let deadline = Instant::now() + limit;
        cordon::set(context, &self.nodes, true).await?;
        for name in &self.nodes {
            let name = name.strip_prefix("node/").unwrap_or(name);
            let pods = self.victims(&client, name).await?;
            timeout_at(deadline, self.empty(&client, &pods)).await.map_err(|_| {
                CliError::local(format!("drain did not complete within {}s", limit.as_secs()))
            })??;
            print::line(&format!("node/{name} drained"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The pods that have to go; an error when some may not.
    async fn victims(&self, client: &Client, node: &str) -> Result<Vec<Object>> {
        let options = ListOptions {
            fields: format!("spec.nodeName={node}"),
            labels: self.pod_selector.clone().unwrap_or_default(),
            ..ListOptions::default()
        };
        let pods = list_all(client, resource::by_name("pods")?, options).await?.1;
        let (mut victims, mut refused) = (Vec::new(), Vec::new());
        for pod in pods {
            match self.verdict(&pod.value) {
                Verdict::Evict => victims.push(pod),
                Verdict::Skip => {}
                Verdict::Refuse(why) => {
                    refused.push(format!("cannot delete {why}: {}/{}", pod.namespace, pod.name));
                }
            }
        }
        if refused.is_empty() { Ok(victims) } else { Err(CliError::local(refused.join("\n"))) }
    }

    fn verdict(&self, pod: &Value) -> Verdict {
        let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        let owners = list(pod, "/metadata/ownerReferences");
        let mut controllers = owners.iter().filter(|one| one["controller"] == Value::Bool(true));
        let controller = controllers.next().map(|one| text(one, "/kind"));
        match controller {
            Some("DaemonSet") if self.ignore_daemonsets => return Verdict::Skip,
            Some("DaemonSet") => {
                let why = "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
                return Verdict::Refuse(why);
            }
            None if !ended && !self.force => {
                let why = "Pods that declare no controller (use --force to override)";
                return Verdict::Refuse(why);
            }
            _ => {}
        }
        let volumes = list(pod, "/spec/volumes");
        let local = volumes.iter().any(|volume| volume.get("emptyDir").is_some());
        if local && !ended && !self.delete_emptydir_data {
            let why = "Pods with local storage (use --delete-emptydir-data to override)";
            return Verdict::Refuse(why);
        }
        Verdict::Evict
    }

    /// All at once: each waits for its own budget.
    async fn empty(&self, client: &Client, pods: &[Object]) -> Result<()> {
        let results = futures::future::join_all(pods.iter().map(|pod| self.evict(client, pod)));
        results.await.into_iter().collect()
    }

    async fn evict(&self, client: &Client, pod: &Object) -> Result<()> {
        let kind = resource::by_name("pods")?;
        let options = DeleteOptions {
            uid: pod.uid.clone(),
            grace_seconds: self.grace_period,
            evict: !self.disable_eviction,
            ..DeleteOptions::default()
        };
        let (namespace, name) = (&pod.namespace, &pod.name);
        print::line(&format!("evicting pod {namespace}/{name}"))?;
        loop {
            match client.delete(kind, namespace, name, &options).await {
                Ok(_) => break,
                // Gone, or replaced by another one of that name.
                Err(error) if error.is_not_found() || error.is_conflict() => break,
                Err(error) if error.reason == "TooManyRequests" => {
                    eprintln!(
                        "error when evicting pods/{name:?} -n {namespace:?} (will retry): {error}"
                    );
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(RETRY).await;
        }
        loop {
            match client.get(kind, namespace, name).await {
                Ok(now) if now.uid == pod.uid => tokio::time::sleep(POLL).await,
                Ok(_) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(error.into()),
            }
        }
        print::line(&format!("pod/{name} evicted"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        verb: Drain,
    }

    fn verdict(flags: &str, pod: &Value) -> Verdict {
        let args = format!("x n1 {flags}");
        Line::try_parse_from(args.split_whitespace()).unwrap().verb.verdict(pod)
    }

    fn owned(kind: &str) -> Value {
        json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}})
    }

    #[test]
    fn what_needs_a_flag() {
        assert_eq!(verdict("", &owned("ReplicaSet")), Verdict::Evict);
        assert!(matches!(verdict("", &owned("DaemonSet")), Verdict::Refuse(_)));
        assert_eq!(verdict("--ignore-daemonsets", &owned("DaemonSet")), Verdict::Skip);
        assert!(matches!(verdict("", &json!({})), Verdict::Refuse(_)));
        assert_eq!(verdict("--force", &json!({})), Verdict::Evict);
        assert_eq!(verdict("", &json!({"status": {"phase": "Succeeded"}})), Verdict::Evict);
        let mut local = owned("ReplicaSet");
        local["spec"] = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        assert!(matches!(verdict("", &local), Verdict::Refuse(_)));
        assert_eq!(verdict("--delete-emptydir-data", &local), Verdict::Evict);
    }
}
