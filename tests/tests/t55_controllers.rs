//! StatefulSets, DaemonSets, Jobs and CronJobs on real containers.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_testkit::cluster::{is_serving, name, node_of};
use quorate_testkit::image::{WEB_IMAGE, WEB_IMAGE_2, build_web_image};
use quorate_testkit::{Options, TestCluster, cases, suite};

fn main() -> ExitCode {
    let cases = cases![
        a_daemon_set_runs_on_every_node_and_rolls,
        a_job_runs_to_completion_and_a_cron_job_makes_one,
        a_stateful_set_keeps_its_identities_across_the_death_of_a_node,
        a_drain_respects_the_disruption_budget,
        a_quota_is_kept_when_objects_change,
        a_schedule_fires_and_figures_scale,
        pods_move_to_a_node_that_returned,
    ];
    suite::main(Options { rebalance_max_moves: 1, ..Options::default() }, cases)
}

/// A StatefulSet, DaemonSet or Deployment of the web image.
fn workload(kind: &str, name: &str, more: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: \
         {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: \
         web, image: '{image}'}}]\n"
    )
}

async fn a_daemon_set_runs_on_every_node_and_rolls(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    build_web_image(WEB_IMAGE_2).await?;
    cluster.apply(&workload("DaemonSet", "log", "minReadySeconds: 0", WEB_IMAGE)).await?;
    let pods = cluster.wait_pods_ready("app=log", 2).await?;
    let nodes: BTreeSet<_> = pods.iter().map(node_of).collect();
    ensure!(nodes.len() == 2, "{nodes:?}");
    let image = format!("web={WEB_IMAGE_2}");
    cluster.quorate(&["set", "image", "daemonset/log", &image]).await?.ok()?;
    let said = cluster.quorate(&["rollout", "status", "ds/log"]).await?.ok()?;
    ensure!(said.contains("successfully rolled out"), "{said}");
    let history = cluster.quorate(&["rollout", "history", "ds/log"]).await?.ok()?;
    let revisions: Vec<&str> =
        history.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(revisions == ["1", "2"], "{history}");
    cluster.quorate(&["rollout", "undo", "ds/log"]).await?.ok()?;
    cluster.quorate(&["rollout", "status", "ds/log"]).await?.ok()?;
    let back = cluster.pods("app=log").await?;
    let images = back.iter().filter_map(|p| p.spec.as_ref()?.containers[0].image.as_deref());
    ensure!(images.collect::<BTreeSet<_>>() == BTreeSet::from([WEB_IMAGE]));
    cluster.quorate(&["delete", "ds", "log"]).await?.ok().map(drop)
}

/// Waits for a field of an object.
async fn wait_field(cluster: &TestCluster, what: &str, path: &str, wanted: &str) -> Result<()> {
    let path = format!("jsonpath={{{path}}}");
    cluster
        .wait(&format!("{what} {path} is {wanted}"), async || {
            let now = cluster.quorate(&["get", what, "-o", &path]).await?.ok()?;
            ensure!(now.trim() == wanted, "{now}");
            Ok(())
        })
        .await
}

async fn a_job_runs_to_completion_and_a_cron_job_makes_one(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum}}\nspec:\n  completions: 3\n  \
         parallelism: 2\n  completionMode: Indexed\n  template:\n    spec:\n      restartPolicy: \
         Never\n      containers:\n      - name: main\n        image: '{WEB_IMAGE}'\n        \
         command: [/bin/sh, -c, 'echo index $JOB_COMPLETION_INDEX']\n"
    );
    cluster.apply(&job).await?;
    wait_field(&cluster, "job/sum", ".status.succeeded", "3").await?;
    wait_field(&cluster, "job/sum", ".status.completedIndexes", "0-2").await?;
    let pods = cluster.pods("job-name=sum").await?;
    ensure!(pods.len() == 3, "{pods:#?}");
    let last = pods.iter().find(|pod| name(pod).starts_with("sum-2-")).context("no index 2")?;
    let log = cluster.quorate(&["logs", name(last)]).await?.ok()?;
    ensure!(log.trim() == "index 2", "{log}");
    cluster.quorate(&["delete", "job", "sum"]).await?.ok()?;
    cluster
        .wait("its pods go with it", async || {
            let left = cluster.pods("job-name=sum").await?.len();
            ensure!(left == 0, "{left} left");
            Ok(())
        })
        .await?;
    // The schedule itself is tested without waiting for it.
    let schedule =
        ["create", "cronjob", "nightly", "--image", WEB_IMAGE, "--schedule", "0 3 * * *"];
    let command = ["--", "/bin/true"];
    cluster.quorate(&[&schedule[..], &command[..]].concat()).await?.ok()?;
    cluster.quorate(&["create", "job", "now", "--from=cronjob/nightly"]).await?.ok()?;
    wait_field(&cluster, "job/now", ".status.succeeded", "1").await?;
    cluster.quorate(&["delete", "cronjob", "nightly"]).await?.ok()?;
    cluster
        .wait("its jobs go with it", async || {
            let jobs = cluster.quorate(&["get", "jobs", "-o", "name"]).await?.ok()?;
            ensure!(jobs.trim().is_empty(), "{jobs}");
            Ok(())
        })
        .await
}

async fn a_stateful_set_keeps_its_identities_across_the_death_of_a_node(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let more = "serviceName: db\n  replicas: 2";
    cluster.apply(&workload("StatefulSet", "db", more, WEB_IMAGE)).await?;
    let pods = cluster.wait_pods_ready("app=db", 2).await?;
    let names: BTreeSet<_> = pods.iter().map(name).collect();
    ensure!(names == BTreeSet::from(["db-0", "db-1"]), "{names:?}");
    let lost = pods.iter().find(|pod| node_of(pod) == "n2").context("nothing on n2")?;
    let (lost, before) = (name(lost).to_owned(), lost.metadata.uid.clone());
    cluster.kill_node("n2").await?;
    let find = async || {
        let pods = cluster.pods("app=db").await?;
        let pod = pods.into_iter().find(|pod| name(pod) == lost);
        pod.with_context(|| format!("no pod {lost}"))
    };
    cluster
        .wait("it is being deleted", async || {
            let pod = find().await?;
            ensure!(pod.metadata.deletion_timestamp.is_some(), "{pod:?}");
            ensure!(pod.metadata.uid == before, "there are two of one identity");
            Ok(())
        })
        .await?;
    // The node returns, and only then the name is free.
    cluster.heal().await?;
    cluster
        .wait("a new pod has the name", async || {
            let pod = find().await?;
            ensure!(pod.metadata.uid != before && is_serving(&pod), "{pod:?}");
            Ok(())
        })
        .await?;
    cluster.quorate(&["delete", "sts", "db"]).await?.ok().map(drop)
}

async fn a_drain_respects_the_disruption_budget(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(&workload("Deployment", "api", "replicas: 3", WEB_IMAGE)).await?;
    cluster.wait_pods_ready("app=api", 3).await?;
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: api}\nspec: \
                  {minAvailable: 2, selector: {matchLabels: {app: api}}}\n";
    cluster.apply(budget).await?;
    wait_field(&cluster, "pdb/api", ".status.disruptionsAllowed", "1").await?;
    let said = cluster.quorate(&["drain", "n2", "--timeout", "60s"]).await?.ok()?;
    ensure!(said.contains("node/n2 drained"), "{said}");
    let pods = cluster.wait_pods_ready("app=api", 3).await?;
    ensure!(pods.iter().all(|pod| node_of(pod) == "n1"), "{pods:#?}");
    cluster.quorate(&["uncordon", "n2"]).await?.ok()?;
    cluster.quorate(&["delete", "deployment", "api"]).await?.ok()?;
    cluster.quorate(&["delete", "pdb", "api"]).await?.ok().map(drop)
}

async fn a_quota_is_kept_when_objects_change(cluster: Arc<TestCluster>) -> Result<()> {
    let objects = "apiVersion: v1\nkind: Namespace\nmetadata: {name: few}\n---\napiVersion: \
                   v1\nkind: ResourceQuota\nmetadata: {name: few, namespace: few}\nspec: {hard: \
                   {services.nodeports: '1', pods: '1'}}\n---\napiVersion: v1\nkind: \
                   Service\nmetadata: {name: web, namespace: few}\nspec: {ports: [{name: a, port: \
                   1}, {name: b, port: 2}]}\n";
    cluster.apply(objects).await?;
    let changed = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: few}\nspec: \
                   {type: NodePort, ports: [{name: a, port: 1}, {name: b, port: 2}]}\n";
    let said = cluster.quorate_with(&["apply", "-f", "-"], Some(changed)).await?;
    let wanted = "exceeded quota: few, requested: services.nodeports=2, used: \
                  services.nodeports=0, limited: services.nodeports=1";
    said.fails_with(&["forbidden", wanted])?;
    cluster.quorate(&["delete", "namespace", "few"]).await?.ok().map(drop)
}

async fn a_schedule_fires_and_figures_scale(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let schedule = ["create", "cronjob", "tick", "--image", WEB_IMAGE, "--schedule", "* * * * *"];
    cluster.quorate(&[&schedule[..], &["--", "/bin/true"]].concat()).await?.ok()?;
    let busy = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: busy}}\nspec:\n  replicas: 1\n  \
         selector: {{matchLabels: {{app: busy}}}}\n  template:\n    metadata: {{labels: {{app: \
         busy}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - \
         name: main\n        image: '{WEB_IMAGE}'\n        command: [/bin/sh, -c, 'while true; do \
         true; done']\n        resources: {{requests: {{cpu: 20m}}, limits: {{cpu: 100m}}}}\n---\n\
         apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: busy}}\nspec:\n  \
         scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: busy}}\n  minReplicas: 1\n  \
         maxReplicas: 3\n  metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: \
         Utilization, averageUtilization: 50}}}}}}]\n"
    );
    cluster.apply(&busy).await?;
    let patience = Duration::from_secs(120);
    cluster
        .wait_within("it is scaled by what its pods use", patience, async || {
            let args = ["get", "hpa/busy", "-o", "json"];
            let told = cluster.quorate(&args).await?.json()?;
            ensure!(told["status"]["desiredReplicas"] == 3, "{:#}", told["status"]);
            Ok(())
        })
        .await?;
    cluster.wait_pods_ready("app=busy", 3).await?;
    cluster
        .wait_within("the schedule has fired, and the job has run", patience, async || {
            let jobs = cluster.quorate(&["get", "jobs", "-o", "json"]).await?.json()?;
            let items = jobs["items"].as_array().context("no items")?;
            let of_tick = |job: &&serde_json::Value| {
                job["metadata"]["ownerReferences"][0]["name"] == "tick"
                    && job["status"]["succeeded"] == 1
            };
            items.iter().find(of_tick).context("no job has run")?;
            Ok(())
        })
        .await?;
    let all = ["delete", "cronjob/tick", "hpa/busy", "deployment/busy"];
    cluster.quorate(&all).await?.ok().map(drop)
}

async fn pods_move_to_a_node_that_returned(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(&workload("Deployment", "even", "replicas: 4", WEB_IMAGE)).await?;
    cluster.wait_pods_ready("app=even", 4).await?;
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: even}\nspec: \
                  {minAvailable: 3, selector: {matchLabels: {app: even}}}\n";
    cluster.apply(budget).await?;
    cluster.kill_node("n2").await?;
    cluster
        .wait("all run on the node that is left", async || {
            let pods = cluster.pods("app=even").await?;
            let there = pods.iter().filter(|pod| is_serving(pod) && node_of(pod) == "n1").count();
            ensure!(there == 4, "{there}");
            Ok(())
        })
        .await?;
    cluster.heal().await?;
    // The node has to be ready for half a minute first.
    let patience = Duration::from_secs(180);
    let mut fewest = 4;
    cluster
        .wait_within("two have moved", patience, async || {
            let pods = cluster.pods("app=even").await?;
            let serving: Vec<_> = pods.iter().filter(|pod| is_serving(pod)).collect();
            fewest = fewest.min(serving.len());
            let there = serving.iter().filter(|pod| node_of(pod) == "n2").count();
            ensure!(there == 2 && serving.len() == 4, "{there} of {} on n2", serving.len());
            Ok(())
        })
        .await?;
    ensure!(fewest >= 3, "more than one has moved at a time: {fewest} were left");
    let args = ["get", "events", "-o", "json"];
    let events = cluster.quorate(&args).await?.json()?;
    let items = events["items"].as_array().context("no items")?;
    ensure!(items.iter().any(|event| event["reason"] == "Rebalanced"), "nobody says so");
    cluster.quorate(&["delete", "deployment/even", "pdb/even"]).await?.ok().map(drop)
}
