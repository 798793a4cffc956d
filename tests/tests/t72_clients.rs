//! Clients that programs are written with: kube-rs and its Controller, and Helm.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Config as ControllerConfig};
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, ResourceExt as _};
use quorate_testkit::image::{WEB_IMAGE, WEB_IMAGE_2, build_web_image};
use quorate_testkit::process::has;
use quorate_testkit::{Helm, Kubectl, Options, TestCluster, cases, suite, wait_for};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let cases = cases![
        kube_writes_reads_pages_and_follows_logs,
        a_reflector_misses_nothing_while_leaders_die,
        a_controller_goes_on_while_leaders_die,
        helm_installs_upgrades_and_rolls_back,
        helm_says_what_failed,
    ];
    suite::main(Options::default(), cases)
}

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);

async fn connect(cluster: &TestCluster) -> Result<Client> {
    let file = Kubeconfig::read_from(cluster.dir().join("kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn config_map(name: &str, by: &str, number: u32) -> Result<ConfigMap> {
    Ok(serde_json::from_str(&config_map_json(name, by, number).to_string())?)
}

fn config_map_json(name: &str, by: &str, number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"by": by}}, "data": {"n": number.to_string()},
    })
}

async fn kube_writes_reads_pages_and_follows_logs(cluster: Arc<TestCluster>) -> Result<()> {
    let client = connect(&cluster).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for number in 0..7 {
        let name = format!("page-{number}");
        maps.create(&PostParams::default(), &config_map(&name, "paging", number)?).await?;
    }
    let refused = maps.create(&PostParams::default(), &config_map("page-0", "x", 0)?).await;
    let kube::Error::Api(status) = refused.err().context("created twice")? else {
        anyhow::bail!("an error without a Status")
    };
    ensure!(status.code == 409 && status.reason == "AlreadyExists", "{status:?}");
    // Pages show one state: what is made meanwhile is not on them.
    let mut paged = ListParams::default().labels("by=paging").limit(3);
    let (mut names, mut pages) = (Vec::new(), 0);
    loop {
        let page = maps.list(&paged).await?;
        names.extend(page.items.iter().map(ConfigMap::name_any));
        pages += 1;
        if pages == 1 {
            let late = config_map("page-00", "paging", 9)?;
            maps.create(&PostParams::default(), &late).await?;
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => paged = paged.continue_token(&token),
            None => break,
        }
    }
    let want: Vec<String> = (0..7).map(|number| format!("page-{number}")).collect();
    ensure!(names == want && pages == 3, "{pages} pages: {names:?}");
    patches(&maps).await?;
    let all = DeleteParams::default();
    maps.delete_collection(&all, &ListParams::default().labels("by=paging")).await?;
    ensure!(maps.list(&ListParams::default().labels("by=paging")).await?.items.is_empty());
    logs(&client).await
}

/// Every kind of patch, and apply by two managers.
async fn patches(maps: &Api<ConfigMap>) -> Result<()> {
    let plain = PatchParams::default();
    let merged = maps.patch("page-0", &plain, &Patch::Merge(json!({"data": {"m": "1"}}))).await?;
    ensure!(merged.data.iter().flatten().count() == 2, "{merged:?}");
    let strategic = Patch::Strategic(json!({"data": {"m": null}}));
    let less = maps.patch("page-0", &plain, &strategic).await?;
    ensure!(less.data.iter().flatten().count() == 1, "{less:?}");
    let mine = PatchParams::apply("mine");
    let first = Patch::Apply(config_map_json("applied", "paging", 1));
    let applied = maps.patch("applied", &mine, &first).await?;
    ensure!(applied.managed_fields().iter().any(|one| one.manager.as_deref() == Some("mine")));
    let theirs = PatchParams::apply("theirs");
    let other = Patch::Apply(config_map_json("applied", "paging", 2));
    let conflict = maps.patch("applied", &theirs, &other).await;
    let kube::Error::Api(status) = conflict.err().context("no conflict")? else {
        anyhow::bail!("an error without a Status")
    };
    ensure!(status.code == 409, "{status:?}");
    has(&status.message, &["conflict with \"mine\"", ".data.n"])?;
    let forced = maps.patch("applied", &theirs.force(), &other).await?;
    ensure!(forced.data.iter().flatten().any(|(_, value)| value == "2"), "{forced:?}");
    let fresh = maps.get("applied").await?;
    let stale = PostParams::default();
    let mut old = fresh.clone();
    old.metadata.resource_version = applied.metadata.resource_version;
    old.metadata.managed_fields = None;
    let refused = maps.replace("applied", &stale, &old).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409), "{refused:?}");
    Ok(())
}

async fn logs(client: &Client) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "speaker"},
        "spec": {
            "terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": WEB_IMAGE,
                "command": ["/bin/sh", "-c", "for i in 1 2 3; do echo line $i; sleep 1; done"],
            }],
        },
    });
    pods.create(&PostParams::default(), &serde_json::from_str(&pod.to_string())?).await?;
    wait_for("the pod has begun", SOON, async || {
        let phase = pods.get("speaker").await?.status.and_then(|status| status.phase);
        ensure!(matches!(phase.as_deref(), Some("Running" | "Succeeded")), "{phase:?}");
        Ok(())
    })
    .await?;
    let follow = LogParams { follow: true, ..LogParams::default() };
    let lines = pods.log_stream("speaker", &follow).await?.lines();
    let lines: Vec<String> =
        tokio::time::timeout(SOON, lines.try_collect()).await.context("no end of the log")??;
    ensure!(lines == ["line 1", "line 2", "line 3"], "{lines:?}");
    let tail = LogParams { tail_lines: Some(1), ..LogParams::default() };
    ensure!(pods.logs("speaker", &tail).await? == "line 3\n");
    pods.delete("speaker", &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

/// Kills the leader, and brings it back.
async fn kill_leader(cluster: &TestCluster) -> Result<()> {
    let leader = cluster.leader().await?;
    cluster.kill(&leader).await?;
    cluster.wait_leader(&leader).await?;
    cluster.heal().await
}

/// Writes until it is done: what became of an attempt may be unknown, and once is enough.
async fn set(maps: &Api<ConfigMap>, name: &str, number: u32) -> Result<()> {
    let patch = json!({"data": {"n": number.to_string()}});
    wait_for("a write", SOON, async || {
        maps.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    })
    .await?;
    Ok(())
}

/// What a reflector has seen: numbers by object, and how often it had to list.
#[derive(Default)]
struct Seen {
    numbers: BTreeMap<String, Vec<u32>>,
    lists: usize,
}

const OBJECTS: u32 = 5;
const ROUNDS: u32 = 40;

async fn a_reflector_misses_nothing_while_leaders_die(cluster: Arc<TestCluster>) -> Result<()> {
    let client = connect(&cluster).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for object in 0..OBJECTS {
        let made = config_map(&format!("seen-{object}"), "reflector", 0)?;
        maps.create(&PostParams::default(), &made).await?;
    }
    let (reader, writer) = reflector::store::<ConfigMap>();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let config = watcher::Config::default().labels("by=reflector").streaming_lists();
    let events = watcher(maps.clone(), config).default_backoff().reflect(writer);
    let noted = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(watcher::Event::Init) => seen.lists += 1,
                Ok(watcher::Event::InitApply(map) | watcher::Event::Apply(map)) => {
                    let number = map.data.iter().flatten().find(|(key, _)| *key == "n");
                    let number: Option<u32> = number.and_then(|(_, value)| value.parse().ok());
                    seen.numbers.entry(map.name_any()).or_default().extend(number);
                }
                // It resumes by itself.
                Ok(_) | Err(_) => {}
            }
        }
    });
    tokio::time::timeout(SOON, reader.wait_until_ready()).await.context("no list")??;
    let writes = async {
        for round in 1..=ROUNDS {
            for object in 0..OBJECTS {
                set(&maps, &format!("seen-{object}"), round).await?;
            }
        }
        anyhow::Ok(())
    };
    let deaths = async {
        kill_leader(&cluster).await?;
        kill_leader(&cluster).await
    };
    tokio::try_join!(writes, deaths)?;
    // One more of each: it comes after all the others.
    for object in 0..OBJECTS {
        set(&maps, &format!("seen-{object}"), ROUNDS + 1).await?;
    }
    // Asked of what is noted, not of its store, which is ahead of that.
    wait_for("the reflector has seen the last write", SOON, async || {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.numbers.len() == OBJECTS as usize, "{:?}", seen.numbers.keys());
        for (name, numbers) in &seen.numbers {
            ensure!(numbers.last() == Some(&(ROUNDS + 1)), "{name}: {numbers:?}");
        }
        Ok(())
    })
    .await?;
    task.abort();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let every: Vec<u32> = (0..=ROUNDS + 1).collect();
    for (name, numbers) in &seen.numbers {
        ensure!(*numbers == every, "{name}: {numbers:?}");
    }
    ensure!(seen.lists == 1, "it had to list {} times", seen.lists);
    Ok(())
}

/// What the controller below shares with its reconciler.
struct Shared {
    client: Client,
}

/// Keeps one Secret for each ConfigMap: its number, doubled.
async fn double(map: Arc<ConfigMap>, shared: Arc<Shared>) -> Result<Action, kube::Error> {
    let secrets: Api<Secret> = Api::default_namespaced(shared.client.clone());
    let number = map.data.iter().flatten().find(|(key, _)| *key == "n");
    let number: u32 = number.and_then(|(_, text)| text.parse().ok()).unwrap_or(0);
    let name = map.name_any();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": map.uid(),
                "controller": true,
            }],
        },
        "stringData": {"n": (2 * number).to_string()},
    });
    let params = PatchParams::apply("doubler").force();
    secrets.patch(&name, &params, &Patch::Apply(&secret)).await?;
    Ok(Action::await_change())
}

async fn a_controller_goes_on_while_leaders_die(cluster: Arc<TestCluster>) -> Result<()> {
    let client = connect(&cluster).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let config = watcher::Config::default().labels("by=controller");
    let controller = Controller::new(maps.clone(), config)
        .owns(secrets.clone(), watcher::Config::default())
        .with_config(ControllerConfig::default().concurrency(4))
        .run(
            double,
            |_, _, _| Action::requeue(Duration::from_millis(500)),
            Arc::new(Shared { client }),
        );
    let task = tokio::spawn(controller.for_each(|_| async {}));
    for object in 0..OBJECTS {
        let made = config_map(&format!("work-{object}"), "controller", 0)?;
        maps.create(&PostParams::default(), &made).await?;
    }
    let writes = async {
        for round in 1..=10 {
            for object in 0..OBJECTS {
                set(&maps, &format!("work-{object}"), round).await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(writes, kill_leader(&cluster))?;
    doubled(&secrets, 20).await?;
    // What it owns comes back; what it does not own any more goes.
    secrets.delete("work-0", &DeleteParams::default()).await?;
    doubled(&secrets, 20).await?;
    task.abort();
    let all = ListParams::default().labels("by=controller");
    maps.delete_collection(&DeleteParams::default(), &all).await?;
    wait_for("the secrets go with their owners", SOON, async || {
        let left = secrets.list(&ListParams::default()).await?.items;
        let left = left.iter().filter(|secret| secret.name_any().starts_with("work-")).count();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn doubled(secrets: &Api<Secret>, want: u32) -> Result<()> {
    wait_for("every secret is up to date", SOON, async || {
        for object in 0..OBJECTS {
            let secret = secrets.get(&format!("work-{object}")).await?;
            let number = secret.data.iter().flatten().find(|(key, _)| *key == "n");
            let number = number.map(|(_, bytes)| bytes.0.clone());
            ensure!(number == Some(want.to_string().into_bytes()), "{secret:?}");
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// The chart, as Helm names it.
fn chart() -> Result<&'static str> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/chart");
    ensure!(Path::new(chart).is_dir(), "no {chart}");
    Ok(chart)
}

async fn helm_installs_upgrades_and_rolls_back(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    build_web_image(WEB_IMAGE_2).await?;
    let (helm, k, chart) = (Helm::open(&cluster)?, Kubectl::newest(&cluster).await?, chart()?);
    let image = format!("image={WEB_IMAGE}");
    let install = ["install", "shop", chart, "--set", &image, "--wait", "--timeout=60s"];
    has(&helm.ok(&install).await?, &["STATUS: deployed", "REVISION: 1", "Thank you"])?;
    // --wait means what it says, and the hook has run before all else.
    has(&k.ok(&["get", "deploy", "shop"]).await?, &["2/2"])?;
    let hook = k.ok(&["get", "job", "shop-prepare", "-o", "jsonpath={.status.succeeded}"]).await?;
    ensure!(hook == "1", "the hook: {hook}");
    has(
        &k.ok(&["get", "svc,cm,secret,sa,ing,hpa,pdb", "-l", "app=shop", "-o", "name"]).await?,
        &[
            "service/shop",
            "configmap/shop",
            "secret/shop",
            "serviceaccount/shop",
            "ingress.networking.k8s.io/shop",
            "horizontalpodautoscaler.autoscaling/shop",
            "poddisruptionbudget.policy/shop",
        ],
    )?;
    has(&helm.ok(&["list"]).await?, &["NAME", "shop", "deployed", "shop-0.1.0"])?;
    has(&helm.ok(&["status", "shop"]).await?, &["STATUS: deployed"])?;
    has(&helm.ok(&["get", "manifest", "shop"]).await?, &["kind: Deployment", "kind: Ingress"])?;
    has(&helm.ok(&["get", "values", "shop"]).await?, &[WEB_IMAGE])?;

    let image = format!("image={WEB_IMAGE_2}");
    let upgrade = ["upgrade", "shop", chart, "--set", &image, "--set", "greeting=bye", "--wait"];
    has(&helm.ok(&upgrade).await?, &["has been upgraded", "REVISION: 2"])?;
    let shown = ["get", "deploy", "shop", "-o", "jsonpath={..image}"];
    ensure!(k.ok(&shown).await? == WEB_IMAGE_2);
    let greeting = ["get", "cm", "shop", "-o", "jsonpath={.data.greeting}"];
    ensure!(k.ok(&greeting).await? == "bye");
    has(&helm.ok(&["history", "shop"]).await?, &["superseded", "deployed", "Upgrade complete"])?;

    has(&helm.ok(&["rollback", "shop", "1", "--wait"]).await?, &["Rollback was a success"])?;
    ensure!(k.ok(&shown).await? == WEB_IMAGE);
    ensure!(k.ok(&greeting).await? == "hello");
    has(&helm.ok(&["history", "shop"]).await?, &["Rollback to 1"])?;
    let again = helm.run(&["install", "shop", chart]).await?;
    again.fails_with(&["cannot re-use a name that is still in use"])?;

    has(&helm.ok(&["uninstall", "shop", "--wait"]).await?, &["uninstalled"])?;
    let left = k.ok(&["get", "deploy,svc,cm,secret,sa,ing,hpa,pdb", "-l", "app=shop"]).await?;
    ensure!(left.is_empty(), "{left}");
    ensure!(!helm.ok(&["list", "-a"]).await?.contains("shop"));
    k.ok(&["delete", "job", "shop-prepare", "--ignore-not-found"]).await.map(drop)
}

async fn helm_says_what_failed(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    let (helm, chart) = (Helm::open(&cluster)?, chart()?);
    let image = format!("image={WEB_IMAGE}");
    let install = ["install", "sad", chart, "--set", &image, "--set", "hook=false"];
    let failed = helm.run(&[&install[..], &["--timeout=60s"]].concat()).await?;
    failed.fails_with(&["failed pre-install", "sad-prepare"])?;
    has(&helm.ok(&["list", "-a"]).await?, &["sad", "failed"])?;
    helm.ok(&["uninstall", "sad"]).await?;
    // What the server refuses is said in its words, and nothing half-made stays.
    let wrong = ["--set", "replicas=-1", "--atomic", "--timeout=60s"];
    let install = ["install", "sad", chart, "--set", &image];
    let refused = helm.run(&[&install[..], &wrong].concat()).await?;
    refused.fails_with(&["spec.replicas", "greater than or equal to 0"])?;
    ensure!(!helm.ok(&["list", "-a"]).await?.contains("sad"));
    let k = Kubectl::newest(&cluster).await?;
    k.ok(&["delete", "job", "sad-prepare", "--ignore-not-found"]).await.map(drop)
}
