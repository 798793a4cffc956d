//! `quorate rollout status|history|undo|restart|pause|resume`

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::{Client, Event, ListOptions, Object, PatchOptions, PatchType, WatchOptions};
use quorate_objects::Kind;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::context::{Context, list_all};
use crate::error::{CliError, Result};
use crate::json::{int, list, pairs, text};
use crate::output::{print, table};
use crate::resource::{self, reference};
use crate::{duration, merge};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CAUSE: &str = "kubernetes.io/change-cause";
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Looks after a rollout.
#[derive(Args, Debug)]
pub struct Rollout {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Wait until the rollout is done
    Status {
        /// deploy/NAME
        #[arg(required = true)]
        what: Vec<String>,
        /// How long; 0: as long as it takes
        #[arg(long, default_value = "0s", value_parser = duration::parse)]
        timeout: Duration,
        /// Wait until it is done; =false: look once
        #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
              default_missing_value = "true", require_equals = true)]
        watch: bool,
    },
    /// Show the revisions
    History {
        /// deploy/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Go back to an earlier revision
    Undo {
        /// deploy/NAME
        #[arg(required = true)]
        what: Vec<String>,
        /// Which; 0: the one before
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replace all pods, one after the other
    Restart {
        /// deploy/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Leave changes of the template without effect for now
    Pause {
        /// deploy/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Let changes of the template take effect again
    Resume {
        /// deploy/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
}

impl Rollout {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        let (Verb::Status { what, .. }
        | Verb::History { what }
        | Verb::Undo { what, .. }
        | Verb::Restart { what }
        | Verb::Pause { what }
        | Verb::Resume { what }) = &self.verb;
        for target in resource::parse(what)? {
            let kind = target.kind;
            if kind.kind != "Deployment" {
                let message = format!("no rollout for a {}, only for deployments", kind.singular);
                return Err(CliError::local(message));
            }
            let Some(name) = target.name else {
                return Err(CliError::local("required resource not specified: deploy/NAME"));
            };
            let object = client.get(kind, context.namespace(), name).await?;
            let rollout = One { client: &client, kind, object };
            match &self.verb {
                Verb::Status { timeout, watch, .. } => rollout.status(*timeout, *watch).await?,
                Verb::History { .. } => rollout.history().await?,
                Verb::Undo { to_revision, .. } => rollout.undo(*to_revision).await?,
                Verb::Restart { .. } => rollout.restart().await?,
                Verb::Pause { .. } => rollout.pause(true).await?,
                Verb::Resume { .. } => rollout.pause(false).await?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a rollout still waits for; `Ok(None)`: nothing.
fn progress(deployment: &Value) -> Result<Option<String>> {
    let name = text(deployment, "/metadata/name");
    if int(deployment, "/metadata/generation") > int(deployment, "/status/observedGeneration") {
        return Ok(Some("Waiting for deployment spec update to be observed...".into()));
    }
    let late = list(deployment, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == "Progressing"
            && text(condition, "/reason") == "ProgressDeadlineExceeded"
    });
    if late {
        let message = format!("deployment {name:?} exceeded its progress deadline");
        return Err(CliError::local(message));
    }
    let count = |field: &str| int(deployment, &format!("/status/{field}"));
    let wanted = int(deployment, "/spec/replicas");
    let (all, updated) = (count("replicas"), count("updatedReplicas"));
    let available = count("availableReplicas");
    let rest = if updated < wanted {
        format!("{updated} out of {wanted} new replicas have been updated...")
    } else if all > updated {
        format!("{} old replicas are pending termination...", all - updated)
    } else if available < updated {
        format!("{available} of {updated} updated replicas are available...")
    } else {
        return Ok(None);
    };
    Ok(Some(format!("Waiting for deployment {name:?} rollout to finish: {rest}")))
}

struct One<'a> {
    client: &'a Client,
    kind: &'static Kind,
    object: Object,
}

impl One<'_> {
    async fn status(&self, limit: Duration, wait: bool) -> Result<()> {
        let name = &self.object.name;
        let done = || print::line(&format!("deployment {name:?} successfully rolled out"));
        if !wait {
            return match progress(&self.object.value)? {
                Some(message) => print::line(&message),
                None => done(),
            };
        }
        let limit = if limit.is_zero() { LONGEST } else { limit };
        timeout(limit, self.finished())
            .await
            .map_err(|_| CliError::local("timed out waiting for the rollout"))??;
        done()
    }

    async fn finished(&self) -> Result<()> {
        let options = || WatchOptions {
            namespace: self.object.namespace.clone(),
            fields: format!("metadata.name={}", self.object.name),
            ..WatchOptions::default()
        };
        let mut watch = self.client.watch(self.kind, options());
        let mut said = String::new();
        loop {
            match watch.next().await {
                Ok(Event::Added(object) | Event::Modified(object)) => {
                    let Some(message) = progress(&object.value)? else { return Ok(()) };
                    if message != said {
                        print::line(&message)?;
                        said = message;
                    }
                }
                Ok(Event::Deleted(_)) => {
                    return Err(CliError::local("object has been deleted"));
                }
                Ok(Event::Bookmark(_)) => {}
                Err(error) if error.is_gone() => watch = self.client.watch(self.kind, options()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The deployment's replica sets with their revisions, the oldest first.
    async fn revisions(&self) -> Result<Vec<(i64, Value)>> {
        let options = ListOptions {
            namespace: self.object.namespace.clone(),
            labels: pairs(&self.object.value, "/spec/selector/matchLabels", "=").join(","),
            ..ListOptions::default()
        };
        let all = list_all(self.client, resource::by_name("replicasets")?, options).await?.1;
        let owned = |set: &Object| {
            list(&set.value, "/metadata/ownerReferences")
                .iter()
                .any(|owner| text(owner, "/uid") == self.object.uid)
        };
        let revision = |set: Object| {
            let number = set.value["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?;
            Some((number, set.value))
        };
        let mut found: Vec<(i64, Value)> =
            all.into_iter().filter(owned).filter_map(revision).collect();
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    async fn history(&self) -> Result<()> {
        print::line(&reference(self.kind, &self.object.name))?;
        let mut rows = vec![vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()]];
        for (number, set) in self.revisions().await? {
            let cause = set["metadata"]["annotations"][CAUSE].as_str().unwrap_or("<none>");
            rows.push(vec![number.to_string(), cause.to_owned()]);
        }
        print::text(&table::render(&rows))
    }

    async fn undo(&self, to: i64) -> Result<()> {
        let revisions = self.revisions().await?;
        let found = match to {
            0 if revisions.len() < 2 => {
                return Err(CliError::local("no rollout history found for the deployment"));
            }
            0 => revisions.get(revisions.len() - 2),
            wanted => revisions.iter().find(|(number, _)| *number == wanted),
        };
        let (_, set) = found.ok_or_else(|| {
            CliError::local(format!("unable to find specified revision {to} in history"))
        })?;
        let mut template = set["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        if template == self.object.value["spec"]["template"] {
            let name = reference(self.kind, &self.object.name);
            return print::line(&format!(
                "{name} skipped rollback (current template already matches)"
            ));
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        self.patch(PatchType::Json, patch, "rolled back").await
    }

    async fn restart(&self) -> Result<()> {
        let now = quorate_objects::time::format(jiff::Timestamp::now());
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let mut after = self.object.value.clone();
        merge::apply(&mut after, &patch);
        if after == self.object.value {
            return Err(CliError::local(
                "if restart has already been triggered within the past \
                                        second, please wait before attempting to trigger another",
            ));
        }
        self.patch(PatchType::Merge, patch, "restarted").await
    }

    async fn pause(&self, paused: bool) -> Result<()> {
        let word = if paused { "paused" } else { "resumed" };
        if (self.object.value["spec"]["paused"].as_bool() == Some(true)) == paused {
            let name = reference(self.kind, &self.object.name);
            let state = if paused { "already paused" } else { "not paused" };
            return Err(CliError::local(format!("{name} is {state}")));
        }
        self.patch(PatchType::Merge, json!({"spec": {"paused": paused}}), word).await
    }

    async fn patch(&self, patch_type: PatchType, patch: Value, word: &str) -> Result<()> {
        let Object { namespace, name, .. } = &self.object;
        let options = PatchOptions::default();
        self.client.patch(self.kind, namespace, name, patch_type, &patch, &options).await?;
        print::line(&format!("{} {word}", reference(self.kind, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3},
               "status": status})
    }

    #[test]
    fn what_a_rollout_waits_for() {
        let message = |status: Value| progress(&deployment(status)).unwrap().unwrap_or_default();
        assert!(message(json!({"observedGeneration": 1})).contains("to be observed"));
        let mut status = json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1});
        assert!(message(status.clone()).contains("1 out of 3 new replicas"));
        status["updatedReplicas"] = json!(3);
        assert!(message(status.clone()).contains("1 old replicas are pending"));
        status["replicas"] = json!(3);
        status["availableReplicas"] = json!(2);
        assert!(message(status.clone()).contains("2 of 3 updated replicas are available"));
        status["availableReplicas"] = json!(3);
        assert_eq!(message(status.clone()), "");
        status["conditions"] =
            json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert!(progress(&deployment(status)).is_err());
    }
}
