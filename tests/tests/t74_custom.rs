//! Custom kinds with real clients: kubectl, and operators that reconcile them, through the death
//! of leaders.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt as _};
use quorate_testkit::process::has;
use quorate_testkit::{Kubectl, Options, TestCluster, cases, suite, wait_for};
use serde_json::json;

fn main() -> ExitCode {
    let cases = cases![
        kubectl_handles_custom_kinds_like_all_others,
        mistakes_are_refused_with_their_place,
        every_master_serves_them,
        a_controller_of_kube_reconciles_them_while_leaders_die,
        an_operator_of_kopf_reconciles_them_while_leaders_die,
        with_the_definition_go_its_objects,
    ];
    suite::main(Options::default(), cases)
}

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);
const DEFINITION: &str = include_str!("../manifests/crontab.yaml");
const CRD: &str = "crontabs.stable.example.com";

fn tab(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: stable.example.com/v1
kind: CronTab
metadata: {{name: {name}}}
spec:
  cronSpec: '* * * * */5'
  image: my-image
  replicas: {replicas}
"
    )
}

/// The definition, there and established.
async fn define(k: &Kubectl) -> Result<()> {
    k.apply(DEFINITION).await?;
    let established = ["wait", "crd", CRD, "--for=condition=Established", "--timeout=30s"];
    k.ok(&established).await.map(drop)
}

async fn kubectl_handles_custom_kinds_like_all_others(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    has(&k.apply(DEFINITION).await?, &["crontabs.stable.example.com created"])?;
    define(&k).await?;
    has(&k.apply(DEFINITION).await?, &["unchanged"])?;
    has(&k.ok(&["get", "crd"]).await?, &["NAME", "CREATED AT", CRD])?;
    has(&k.ok(&["describe", "crd", CRD]).await?, &["NoConflicts", "InitialNamesAccepted"])?;
    has(
        &k.ok(&["api-resources", "--api-group=stable.example.com"]).await?,
        &["crontabs", "ct", "stable.example.com/v1", "CronTab"],
    )?;
    has(&k.apply(&tab("one", 3)).await?, &["crontab.stable.example.com/one created"])?;
    has(&k.apply(&tab("one", 3)).await?, &["crontab.stable.example.com/one unchanged"])?;
    for name in
        ["crontabs", "crontab", "ct", "ct.stable.example.com", "crontabs.v1.stable.example.com"]
    {
        has(&k.ok(&["get", name]).await?, &["NAME", "SPEC", "REPLICAS", "AGE", "* * * * */5"])?;
    }
    ensure!(!k.ok(&["get", "ct"]).await?.contains("IMAGE"));
    has(&k.ok(&["get", "ct", "-o", "wide"]).await?, &["IMAGE", "my-image"])?;
    has(&k.ok(&["get", "all"]).await?, &["crontab.stable.example.com/one"])?;
    // Defaults are filled in.
    has(&k.ok(&["get", "ct", "one", "-o", "yaml"]).await?, &["suspend: false", "generation: 1"])?;
    has(
        &k.ok(&["explain", "crontab.spec"]).await?,
        &["cronSpec", "<string> -required-", "When it runs."],
    )?;
    has(&k.ok(&["explain", "ct.spec.replicas"]).await?, &["<integer>"])?;
    has(&k.ok(&["describe", "ct", "one"]).await?, &["Name:", "one", "Cron Spec:"])?;
    has(&k.ok(&["scale", "ct/one", "--replicas=5"]).await?, &["scaled"])?;
    has(&k.ok(&["label", "ct", "one", "tier=x"]).await?, &["labeled"])?;
    let patch = ["patch", "ct", "one", "--type=merge", "-p", "{\"spec\":{\"image\":\"other\"}}"];
    has(&k.ok(&patch).await?, &["patched"])?;
    let status = [
        "patch",
        "ct",
        "one",
        "--subresource=status",
        "--type=merge",
        "-p",
        "{\"status\":{\"replicas\":5,\"labelSelector\":\"app=one\"}}",
    ];
    has(&k.ok(&status).await?, &["patched"])?;
    let value = k.run(&["get", "ct", "one", "-o", "json"]).await?.json()?;
    ensure!(value["metadata"]["generation"] == 3 && value["status"]["replicas"] == 5, "{value}");
    let scale = k.ok(&["get", "ct", "one", "--subresource=scale", "-o", "json"]).await?;
    has(&scale, &["\"selector\": \"app=one\""])?;
    applied_by_the_server(&k).await?;
    has(
        &k.ok(&["get", "ct", "-l", "tier=x", "-o", "name"]).await?,
        &["crontab.stable.example.com/one"],
    )?;
    has(&k.ok(&["get", "ct", "--field-selector", "spec.image=other"]).await?, &["one"])?;
    has(
        &k.ok(&["wait", "ct/one", "--for=jsonpath={.status.replicas}=5", "--timeout=20s"]).await?,
        &["met"],
    )?;
    // The version that is not stored.
    has(
        &k.ok(&["get", "crontabs.v1beta1.stable.example.com", "one", "-o", "yaml"]).await?,
        &["apiVersion: stable.example.com/v1beta1"],
    )?;
    has(&k.ok(&["delete", "ct", "one", "two"]).await?, &["\"one\" deleted"]).map(drop)
}

async fn applied_by_the_server(k: &Kubectl) -> Result<()> {
    let apply = async |manager: &str, replicas: u32| {
        let manager = format!("--field-manager={manager}");
        let args = ["apply", "--server-side", &manager, "-f", "-"];
        k.run_with(&args, Some(&tab("two", replicas))).await
    };
    has(&apply("x", 1).await?.ok()?, &["serverside-applied"])?;
    let conflict = apply("y", 2).await?;
    conflict.fails_with(&["conflict with \"x\"", ".spec.replicas"]).map(drop)
}

async fn mistakes_are_refused_with_their_place(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    define(&k).await?;
    let create = async |manifest: &str| k.run_with(&["create", "-f", "-"], Some(manifest)).await;
    create(&tab("bad", 99)).await?.fails_with(&[
        "is invalid",
        "spec.replicas",
        "less than or equal to 10",
    ])?;
    let pattern = tab("bad", 1).replace("* * * * */5", "daily");
    create(&pattern).await?.fails_with(&["spec.cronSpec", "should match"])?;
    let unknown = tab("bad", 1).replace("image:", "imge:");
    create(&unknown)
        .await?
        .fails_with(&["strict decoding error", "unknown field \"spec.imge\""])?;
    let missing = tab("bad", 1).replace("  cronSpec: '* * * * */5'\n", "");
    create(&missing).await?.fails_with(&["spec.cronSpec", "Required value"])?;
    let text = tab("bad", 1).replace("replicas: 1", "replicas: many");
    create(&text).await?.fails_with(&["spec.replicas", "must be of type integer"])?;
    let name = DEFINITION.replace("name: crontabs.stable", "name: tabs.stable");
    create(&name).await?.fails_with(&["metadata.name", "spec.names.plural"])?;
    let other = DEFINITION
        .replace("crontabs", "tabs")
        .replace("singular: crontab", "singular: tab")
        .replace("[ct]", "[tb]");
    k.apply(&other).await?;
    let taken = [
        "wait",
        "crd",
        "tabs.stable.example.com",
        "--for=condition=NamesAccepted=False",
        "--timeout=30s",
    ];
    k.ok(&taken).await?;
    has(
        &k.ok(&["describe", "crd", "tabs.stable.example.com"]).await?,
        &["\"CronTab\" is already in use"],
    )?;
    k.ok(&["delete", "crd", "tabs.stable.example.com"]).await.map(drop)
}

async fn every_master_serves_them(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    define(&k).await?;
    k.apply(&tab("shared", 2)).await?;
    for master in cluster.file()?.masters {
        let flags = ["--server", &master.url, "get", "ct", "shared"];
        has(&k.ok(&flags).await?, &["* * * * */5"]).with_context(|| master.name.clone())?;
    }
    k.ok(&["delete", "ct", "shared"]).await.map(drop)
}

async fn connect(cluster: &TestCluster) -> Result<Client> {
    let file = Kubeconfig::read_from(cluster.dir().join("kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("stable.example.com", "v1", "CronTab"))
}

/// Kills the leader, and brings it back.
async fn kill_leader(cluster: &TestCluster) -> Result<()> {
    let leader = cluster.leader().await?;
    cluster.kill(&leader).await?;
    cluster.wait_leader(&leader).await?;
    cluster.heal().await
}

/// Sets the replicas of all, one after the other, while the leader dies.
async fn change_all(
    cluster: &TestCluster,
    tabs: &Api<DynamicObject>,
    names: &[String],
) -> Result<()> {
    let writes = async {
        for replicas in 2..=8 {
            for name in names {
                let patch = json!({"spec": {"replicas": replicas}});
                wait_for("a write", SOON, async || {
                    tabs.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                    Ok(())
                })
                .await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(writes, kill_leader(cluster)).map(drop)
}

/// Waits until the status of all says what their spec wants.
async fn reconciled(tabs: &Api<DynamicObject>, names: &[String]) -> Result<()> {
    wait_for("every status is up to date", SOON, async || {
        for name in names {
            let found = tabs.get(name).await?;
            let (status, spec) = (&found.data["status"], &found.data["spec"]);
            ensure!(status["replicas"] == spec["replicas"] && spec["replicas"] == 8, "{found:?}");
        }
        Ok(())
    })
    .await
    .map(drop)
}

/// Makes a ConfigMap for each and writes its status.
async fn reconcile(tab: Arc<DynamicObject>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let name = tab.name_any();
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::clone(&client));
    let tabs: Api<DynamicObject> =
        Api::default_namespaced_with(Client::clone(&client), &resource());
    let params = PatchParams::apply("tabs").force();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [{
            "apiVersion": "stable.example.com/v1", "kind": "CronTab", "name": name,
            "uid": tab.uid(), "controller": true,
        }]},
        "data": {"cron": tab.data["spec"]["cronSpec"]},
    });
    maps.patch(&name, &params, &Patch::Apply(&map)).await?;
    let status = json!({
        "apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "status": {"replicas": tab.data["spec"]["replicas"]},
    });
    tabs.patch_status(&name, &params, &Patch::Apply(&status)).await?;
    Ok(Action::await_change())
}

async fn a_controller_of_kube_reconciles_them_while_leaders_die(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    define(&k).await?;
    let client = connect(&cluster).await?;
    let tabs: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let config = watcher::Config::default();
    let controller = Controller::new_with(tabs.clone(), config.clone(), resource())
        .owns(maps.clone(), config)
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(500)), Arc::new(client));
    let task = tokio::spawn(controller.for_each(|_| async {}));
    let names: Vec<String> = (0..5).map(|number| format!("kube-{number}")).collect();
    for name in &names {
        k.apply(&tab(name, 1)).await?;
    }
    change_all(&cluster, &tabs, &names).await?;
    reconciled(&tabs, &names).await?;
    k.ok(&["delete", "cm", "kube-0"]).await?;
    wait_for("what it owns comes back", SOON, async || Ok(maps.get("kube-0").await?)).await?;
    task.abort();
    // With a custom object goes what it owns.
    k.ok(&["delete", "ct", "--all"]).await?;
    wait_for("the config maps are gone", SOON, async || {
        let left = maps.get_opt("kube-1").await?;
        ensure!(left.is_none(), "{left:?}");
        Ok(())
    })
    .await
    .map(drop)
}

async fn an_operator_of_kopf_reconciles_them_while_leaders_die(
    cluster: Arc<TestCluster>,
) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    define(&k).await?;
    let home = std::env::var("HOME").context("no HOME")?;
    let folder = std::env::var("QUORATE_PYTHON_DIR");
    let folder = folder.unwrap_or_else(|_| format!("{home}/.cache/quorate-python"));
    let kopf = Path::new(&folder).join("bin/kopf");
    ensure!(kopf.exists(), "no {}: run deploy/install-python-client.sh", kopf.display());
    let log = cluster.dir().join("kopf.log");
    let file = std::fs::File::create(&log)?;
    let mut operator = tokio::process::Command::new(kopf)
        .args(["run", "--standalone", "--namespace=default"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/crontabs.py"))
        .env("KUBECONFIG", cluster.dir().join("kubeconfig"))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()?;
    let client = connect(&cluster).await?;
    let tabs: Api<DynamicObject> = Api::default_namespaced_with(client, &resource());
    let names: Vec<String> = (0..3).map(|number| format!("kopf-{number}")).collect();
    for name in &names {
        k.apply(&tab(name, 1)).await?;
    }
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    change_all(&cluster, &tabs, &names).await?;
    reconciled(&tabs, &names).await.with_context(told)?;
    // It holds its objects with a finalizer, and lets them go.
    has(&k.ok(&["get", "ct", "kopf-0", "-o", "yaml"]).await?, &["finalizers:", "kopf"])?;
    k.ok(&["delete", "ct", "--all", "--timeout=60s"]).await.with_context(told)?;
    has(&told(), &["kopf-0 is let go"])?;
    operator.kill().await?;
    Ok(())
}

async fn with_the_definition_go_its_objects(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Kubectl::newest(&cluster).await?;
    define(&k).await?;
    k.apply(&tab("last", 1)).await?;
    has(&k.ok(&["delete", "crd", CRD, "--timeout=60s"]).await?, &["deleted"])?;
    // kubectl still remembers the name; the servers do not, each as soon as it has heard of it.
    wait_for("the end of the kind", SOON, async || {
        k.run(&["get", "ct"]).await?.fails_with(&["could not find the requested resource"])
    })
    .await?;
    // It begins anew, empty.
    define(&k).await?;
    let (again, _) = wait_for("the new kind", SOON, async || k.ok(&["get", "ct"]).await).await?;
    ensure!(again.is_empty(), "{again}");
    k.ok(&["delete", "crd", CRD]).await.map(drop)
}
