//! `quorate rollout status|history|undo|restart|pause|resume`

mod progress;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::{Client, Event, ListOptions, Object, PatchOptions, PatchType, WatchOptions};
use quorate_objects::Kind;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::context::{Context, list_all};
use crate::error::{CliError, Result};
use crate::json::{list, text};
use crate::output::{print, table};
use crate::resource::{self, reference};
use crate::{duration, merge};
use progress::{Progress, progress};

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
        /// deploy/NAME · sts/NAME · ds/NAME
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
        /// deploy/NAME · sts/NAME · ds/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Go back to an earlier revision
    Undo {
        /// deploy/NAME · sts/NAME · ds/NAME
        #[arg(required = true)]
        what: Vec<String>,
        /// Which; 0: the one before
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replace all pods, one after the other
    Restart {
        /// deploy/NAME · sts/NAME · ds/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Leave changes of the template without effect for now
    Pause {
        /// deploy/NAME · sts/NAME · ds/NAME
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Let changes of the template take effect again
    Resume {
        /// deploy/NAME · sts/NAME · ds/NAME
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
            if !["Deployment", "StatefulSet", "DaemonSet"].contains(&kind.kind) {
                return Err(CliError::local(format!(
                    "no rollout for a {}, only for deployments, statefulsets and daemonsets",
                    kind.singular
                )));
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

/// A template that there was.
struct Revision {
    number: i64,
    cause: String,
    template: Value,
}

fn cause(keeper: &Object) -> String {
    keeper.value["metadata"]["annotations"][CAUSE].as_str().unwrap_or("<none>").to_owned()
}

/// What a ReplicaSet of a Deployment keeps.
fn of_set(set: &Object) -> Option<Revision> {
    let number = set.value["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?;
    let mut template = set.value["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    Some(Revision { number, cause: cause(set), template })
}

/// What a ControllerRevision keeps.
fn of_revision(revision: &Object) -> Option<Revision> {
    let number = revision.value["revision"].as_i64()?;
    let mut template = revision.value.pointer("/data/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    Some(Revision { number, cause: cause(revision), template })
}

struct One<'a> {
    client: &'a Client,
    kind: &'static Kind,
    object: Object,
}

impl One<'_> {
    async fn status(&self, limit: Duration, wait: bool) -> Result<()> {
        if !wait {
            let (Progress::Waiting(text) | Progress::Done(text)) = progress(&self.object.value)?;
            return print::line(&text);
        }
        let limit = if limit.is_zero() { LONGEST } else { limit };
        let done = timeout(limit, self.finished())
            .await
            .map_err(|_| CliError::local("timed out waiting for the rollout"))??;
        print::line(&done)
    }

    /// Waits until the rollout is done; returns what there is to say about it then.
    async fn finished(&self) -> Result<String> {
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
                    let message = match progress(&object.value)? {
                        Progress::Waiting(message) => message,
                        Progress::Done(message) => return Ok(message),
                    };
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

    /// The templates that there were, with their numbers and causes, the oldest first.
    async fn revisions(&self) -> Result<Vec<Revision>> {
        let sets = self.kind.kind == "Deployment";
        let keepers = if sets { "replicasets" } else { "controllerrevisions" };
        let options =
            ListOptions { namespace: self.object.namespace.clone(), ..ListOptions::default() };
        let all = list_all(self.client, resource::by_name(keepers)?, options).await?.1;
        let owned = |keeper: &Object| {
            list(&keeper.value, "/metadata/ownerReferences")
                .iter()
                .any(|owner| text(owner, "/uid") == self.object.uid)
        };
        let revision = |keeper: Object| if sets { of_set(&keeper) } else { of_revision(&keeper) };
        let mut found: Vec<Revision> = all.into_iter().filter(owned).filter_map(revision).collect();
        found.sort_by_key(|revision| revision.number);
        Ok(found)
    }

    async fn history(&self) -> Result<()> {
        print::line(&reference(self.kind, &self.object.name))?;
        let mut rows = vec![vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()]];
        for revision in self.revisions().await? {
            rows.push(vec![revision.number.to_string(), revision.cause]);
        }
        print::text(&table::render(&rows))
    }

    async fn undo(&self, to: i64) -> Result<()> {
        let revisions = self.revisions().await?;
        let found = match to {
            0 if revisions.len() < 2 => {
                let kind = self.kind.singular;
                return Err(CliError::local(format!("no rollout history found for the {kind}")));
            }
            0 => revisions.get(revisions.len() - 2),
            wanted => revisions.iter().find(|revision| revision.number == wanted),
        };
        let found = found.ok_or_else(|| {
            CliError::local(format!("unable to find specified revision {to} in history"))
        })?;
        let template = found.template.clone();
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
        let now = quorate_objects::time::format(quorate_objects::time::timestamp());
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
        if self.kind.kind != "Deployment" {
            let name = reference(self.kind, &self.object.name);
            let what = if paused { "pausing" } else { "resuming" };
            return Err(CliError::local(format!("{name}: {what} is not supported")));
        }
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
