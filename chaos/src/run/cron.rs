//! A CronJob that is due every minute: clocks that jump must not make it run in bursts. Its Jobs
//! are suspended: that they are made is all that counts.

use anyhow::{Context as _, Result};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use quorate_client::{DeleteOptions, ListOptions, PatchOptions, PatchType};
use quorate_objects::Typed;

use crate::evidence::CronRuns;
use crate::history::Nanos;
use crate::target::Target;

/// Label of its Jobs, with its name as the value.
const LABEL: &str = "chaos-cron";
/// On each Job: the time it stands for.
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The CronJob of a window.
#[derive(Debug)]
pub(super) struct Cron {
    name: String,
    from: Nanos,
}

impl Cron {
    /// Makes it; `None` in somebody else's cluster.
    ///
    /// # Errors
    /// When nobody takes it.
    pub(super) async fn start(target: &Target, window: usize, now: Nanos) -> Result<Option<Self>> {
        if !target.is_ours() {
            return Ok(None);
        }
        let name = format!("cron-{window}");
        target.cluster().apply(&manifest(&name)).await?;
        Ok(Some(Self { name, from: now }))
    }

    /// Changes it, so that its controller looks at the clock now and not when the next minute
    /// begins. During a fault that may fail, and nobody counts it.
    pub(super) async fn touch(&self, target: &Target, step: usize) {
        let patch = serde_json::json!({"metadata": {"labels": {LABEL: step.to_string()}}});
        let (kind, options) = (<CronJob as Typed>::kind(), PatchOptions::default());
        if let Ok(client) = target.client(1) {
            let name = &self.name;
            let _ = client.patch(kind, "default", name, PatchType::Merge, &patch, &options).await;
        }
    }

    /// What it has run.
    ///
    /// # Errors
    /// When nobody answers.
    pub(super) async fn runs(&self, target: &Target, now: Nanos, turns: u64) -> Result<CronRuns> {
        let labels = format!("{LABEL}={}", self.name);
        let options = ListOptions { labels, ..ListOptions::default() };
        let jobs: Vec<Job> = target.client(0)?.list_as(&options).await?;
        let scheduled = jobs.into_iter().map(|job| {
            let annotations = job.metadata.annotations.unwrap_or_default();
            annotations.get(SCHEDULED_AT).cloned().unwrap_or_default()
        });
        Ok(CronRuns { from: self.from, until: now, turns, scheduled: scheduled.collect() })
    }

    /// Removes it with its Jobs.
    ///
    /// # Errors
    /// When nobody answers.
    pub(super) async fn remove(&self, target: &Target) -> Result<()> {
        let (kind, options) = (<CronJob as Typed>::kind(), DeleteOptions::default());
        match target.client(0)?.delete(kind, "default", &self.name, &options).await {
            Err(error) if !error.is_not_found() => {
                Err(error).with_context(|| format!("deleting the CronJob {}", self.name))
            }
            _ => Ok(()),
        }
    }
}

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}}}\nspec:\n  schedule: '* * * \
         * *'\n  successfulJobsHistoryLimit: 1000\n  failedJobsHistoryLimit: 1000\n  \
         jobTemplate:\n    metadata: {{labels: {{{LABEL}: {name}}}}}\n    spec:\n      suspend: \
         true\n      template:\n        spec:\n          restartPolicy: Never\n          \
         containers: [{{name: never, image: 'none:1'}}]\n"
    )
}
