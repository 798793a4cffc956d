//! Claims and their volumes on real Docker: data that outlives pods, and goes only when it may.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use quorate_testkit::cluster::{name, node_of};
use quorate_testkit::docker::docker;
use quorate_testkit::image::{WEB_IMAGE, build_web_image};
use quorate_testkit::{Options, TestCluster, cases, suite};

fn main() -> ExitCode {
    let cases = cases![
        a_stateful_set_finds_its_data_again,
        claims_that_cannot_be_had_say_why,
        a_claim_for_one_pod_is_for_one_pod,
        retained_data_stays,
        a_pod_brings_its_claim_along,
    ];
    suite::main(Options { masters: 1, nodes: 2, ..Options::default() }, cases)
}

/// Docker volumes by the claim that has them.
async fn volumes(cluster: &TestCluster) -> Result<BTreeMap<String, String>> {
    let id = cluster.file()?.cluster_id;
    let filter = format!("label=quorate.dev/cluster={id}");
    let format = "{{.Label \"quorate.dev/claim\"}} {{.Name}}";
    let args = ["volume", "ls", "--filter", &filter, "--format", format];
    let found = docker(&args.map(str::to_owned)).await?;
    let pairs = found.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(claim, name)| (claim.to_owned(), name.to_owned())).collect())
}

fn claim(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: \
         {{resources: {{requests: {{storage: 1Gi}}}}, {more}}}\n---\n"
    )
}

/// A pod that sleeps, with a volume at /data.
fn pod(name: &str, volume: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  volumes: [{{name: data, {volume}}}]\n  containers:\n  \
         - {{name: main, image: '{WEB_IMAGE}', command: [sleep, '1000'], volumeMounts: [{{name: \
         data, mountPath: /data}}]}}\n---\n"
    )
}

fn of_claim(claim: &str) -> String {
    format!("persistentVolumeClaim: {{claimName: {claim}}}")
}

async fn field(cluster: &TestCluster, what: &str, path: &str) -> Result<String> {
    let path = format!("jsonpath={{{path}}}");
    Ok(cluster.quorate(&["get", what, "-o", &path]).await?.ok()?.trim().to_owned())
}

async fn wait_field(cluster: &TestCluster, what: &str, path: &str, wanted: &str) -> Result<()> {
    cluster
        .wait(&format!("{what} {path} is {wanted}"), async || {
            let now = field(cluster, what, path).await?;
            ensure!(now == wanted, "{now}");
            Ok(())
        })
        .await
}

async fn gone(cluster: &TestCluster, what: &str) -> Result<()> {
    cluster
        .wait(&format!("{what} is gone"), async || {
            let found = cluster.quorate(&["get", what]).await?;
            ensure!(found.stderr.contains("not found"), "{found}");
            Ok(())
        })
        .await
}

async fn a_stateful_set_finds_its_data_again(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let set = format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  serviceName: db\n  \
         replicas: 2\n  selector: {{matchLabels: {{app: db}}}}\n  volumeClaimTemplates:\n  - \
         metadata: {{name: data}}\n    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: \
         {{storage: 1Gi}}}}}}\n  template:\n    metadata: {{labels: {{app: db}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: \
         '{WEB_IMAGE}', command: [sleep, '1000'], volumeMounts: [{{name: data, mountPath: /data}}, \
         {{name: data, mountPath: /part, subPath: in/side}}]}}\n"
    );
    cluster.apply(&set).await?;
    let before = cluster.wait_pods_ready("app=db", 2).await?;
    for pod in &before {
        let write = format!("echo {0} > /data/who; echo part > /part/file", name(pod));
        cluster.quorate(&["exec", name(pod), "--", "sh", "-c", &write]).await?.ok()?;
    }
    ensure!(volumes(&cluster).await?.len() == 2, "{:?}", volumes(&cluster).await?);
    cluster.quorate(&["delete", "pod", "db-0", "db-1"]).await?.ok()?;
    let uids: Vec<_> = before.iter().map(|pod| pod.metadata.uid.clone()).collect();
    let after = cluster
        .wait("both are made again", async || {
            let pods = cluster.wait_pods_ready("app=db", 2).await?;
            ensure!(pods.iter().all(|pod| !uids.contains(&pod.metadata.uid)), "still the old");
            Ok(pods)
        })
        .await?;
    for pod in &after {
        let old = before.iter().find(|old| name(old) == name(pod)).context("another name")?;
        ensure!(node_of(old) == node_of(pod), "{} has moved", name(pod));
        let read = ["exec", name(pod), "--", "cat", "/data/who", "/data/in/side/file"];
        let found = cluster.quorate(&read).await?.ok()?;
        ensure!(found == format!("{}\npart\n", name(pod)), "{found}");
    }
    // The claims stay with their data until somebody deletes them.
    cluster.quorate(&["delete", "sts", "db"]).await?.ok()?;
    gone(&cluster, "pod/db-0").await?;
    ensure!(volumes(&cluster).await?.len() == 2);
    cluster.quorate(&["delete", "pvc", "data-db-0", "data-db-1"]).await?.ok()?;
    cluster
        .wait("the data goes with them", async || {
            let left = volumes(&cluster).await?;
            ensure!(left.is_empty(), "{left:?}");
            let objects = cluster.quorate(&["get", "pv", "-o", "name"]).await?.ok()?;
            ensure!(objects.trim().is_empty(), "{objects}");
            Ok(())
        })
        .await
}

/// What is said of a pod that cannot run: by its condition, by an event, by `why`.
async fn says(cluster: &TestCluster, pod: &str, what: &str) -> Result<()> {
    cluster
        .wait(&format!("pod {pod} says “{what}”"), async || {
            let told = cluster.quorate(&["why", &format!("pod/{pod}"), "-o", "json"]).await?;
            let told = told.json()?;
            let event = |event: &serde_json::Value| {
                event["reason"] == "FailedScheduling" && event["message"].to_string().contains(what)
            };
            let condition = told["conditions"][0]["message"].as_str().unwrap_or_default();
            ensure!(condition.contains(what), "{told:#}");
            let events = told["events"].as_array().context("no events")?;
            ensure!(events.iter().any(event), "{told:#}");
            let reasons = told["decision"].to_string();
            ensure!(reasons.contains(what), "{told:#}");
            Ok(())
        })
        .await
}

async fn claims_that_cannot_be_had_say_why(cluster: Arc<TestCluster>) -> Result<()> {
    let cases = [
        ("shared", "accessModes: [ReadWriteMany]", "use ReadWriteOnce"),
        ("block", "accessModes: [ReadWriteOnce], volumeMode: Block", "use Filesystem"),
        (
            "foreign",
            "accessModes: [ReadWriteOnce], storageClassName: nowhere",
            "storageclass.storage.k8s.io",
        ),
    ];
    for (name, more, what) in cases {
        cluster.apply(&(claim(name, more) + &pod(name, &of_claim(name)))).await?;
        says(&cluster, name, what).await?;
        let claim = format!("pvc/{name}");
        ensure!(field(&cluster, &claim, ".status.phase").await? == "Pending");
        cluster
            .wait("the claim says it too", async || {
                let args = ["get", "events", "-o", "json"];
                let events = cluster.quorate(&args).await?.json()?;
                let items = events["items"].as_array().context("no items")?;
                let about = |e: &&serde_json::Value| {
                    e["involvedObject"]["kind"] == "PersistentVolumeClaim"
                        && e["involvedObject"]["name"] == name
                        && e["message"].to_string().contains(what)
                };
                items.iter().find(about).context("no event")?;
                Ok(())
            })
            .await?;
        cluster.quorate(&["delete", &format!("pod/{name}"), &claim]).await?.ok()?;
        gone(&cluster, &claim).await?;
    }
    cluster.apply(&pod("lacks", &of_claim("none"))).await?;
    says(&cluster, "lacks", "not found").await?;
    cluster.quorate(&["delete", "pod/lacks"]).await?.ok().map(drop)
}

async fn a_claim_for_one_pod_is_for_one_pod(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    cluster.apply(&(claim("alone", "accessModes: [ReadWriteOncePod]"))).await?;
    cluster.apply(&pod("first", &of_claim("alone"))).await?;
    cluster.wait_pods_ready("app=first", 1).await?;
    cluster.apply(&pod("second", &of_claim("alone"))).await?;
    says(&cluster, "second", "ReadWriteOncePod").await?;
    // A claim in use stays until its pod has gone.
    cluster.quorate(&["delete", "pod/first"]).await?.ok()?;
    cluster.wait_pods_ready("app=second", 1).await?;
    cluster.quorate(&["delete", "pvc/alone", "--wait=false"]).await?.ok()?;
    ensure!(volumes(&cluster).await?.contains_key("default/alone"));
    ensure!(!field(&cluster, "pvc/alone", ".metadata.deletionTimestamp").await?.is_empty());
    cluster.quorate(&["delete", "pod/second"]).await?.ok()?;
    gone(&cluster, "pvc/alone").await
}

async fn retained_data_stays(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let class = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: \
                 kept}\nprovisioner: docker.quorate.dev\nreclaimPolicy: Retain\n---\n";
    let kept = "accessModes: [ReadWriteOnce], storageClassName: kept";
    cluster.apply(&(class.to_owned() + &claim("keep", kept))).await?;
    // Its class does not wait for a pod; the pod goes where the volume is.
    wait_field(&cluster, "pvc/keep", ".status.phase", "Bound").await?;
    let volume = field(&cluster, "pvc/keep", ".spec.volumeName").await?;
    let node = field(&cluster, &format!("pv/{volume}"), ".spec.csi.volumeAttributes.node").await?;
    cluster.apply(&pod("keeper", &of_claim("keep"))).await?;
    let pods = cluster.wait_pods_ready("app=keeper", 1).await?;
    ensure!(node_of(&pods[0]) == node, "{pods:?}");
    cluster.quorate(&["delete", "pod/keeper", "pvc/keep"]).await?.ok()?;
    wait_field(&cluster, &format!("pv/{volume}"), ".status.phase", "Released").await?;
    cluster.quorate(&["delete", &format!("pv/{volume}")]).await?.ok()?;
    gone(&cluster, &format!("pv/{volume}")).await?;
    let left = volumes(&cluster).await?;
    ensure!(left.get("default/keep") == Some(&volume), "{left:?}");
    docker(&["volume", "rm", &volume].map(str::to_owned)).await.map(drop)
}

async fn a_pod_brings_its_claim_along(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let brings = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: \
                  {requests: {storage: 1Mi}}}}}";
    cluster.apply(&pod("bearer", brings)).await?;
    cluster.wait_pods_ready("app=bearer", 1).await?;
    ensure!(volumes(&cluster).await?.contains_key("default/bearer-data"));
    cluster.quorate(&["delete", "pod/bearer"]).await?.ok()?;
    cluster
        .wait("it takes it away", async || {
            let left = volumes(&cluster).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await
}
