//! One application of many documents, applied as it is, and every verb of kubectl that its life
//! takes. Prints a line for each.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_testkit::image::{WEB_IMAGE, WEB_IMAGE_2, build_web_image};
use quorate_testkit::{Kubectl, Options, TestCluster, cases, suite, wait_for};
use tokio::io::{AsyncBufReadExt as _, BufReader};

fn main() -> ExitCode {
    let cases = cases![
        it_is_applied_and_comes_up,
        it_is_rolled_out_undone_and_scaled,
        it_is_looked_into,
        a_node_is_drained_under_it,
        it_is_changed_and_deleted,
    ];
    suite::main(Options::default(), cases)
}

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/application.yaml");
/// For what takes a moment.
const SOON: Duration = Duration::from_secs(60);
/// What the application is labelled with.
const PART: &str = "app.kubernetes.io/part-of=blog";

/// One kubectl that tells what it was able to do.
struct Verbs(Kubectl);

impl Verbs {
    async fn new(cluster: &TestCluster) -> Result<Self> {
        Ok(Self(Kubectl::newest(cluster).await?))
    }

    /// Runs a command that must succeed and print all of `parts`.
    async fn ok(&self, args: &[&str], parts: &[&str]) -> Result<String> {
        let text = self.0.ok(args).await?;
        for part in parts {
            ensure!(text.contains(part), "kubectl {}: no “{part}” in:\n{text}", args.join(" "));
        }
        println!(
            "  pass  kubectl {} {}",
            self.0.version,
            args.join(" ").replace(MANIFEST, "app.yaml")
        );
        Ok(text)
    }
}

async fn it_is_applied_and_comes_up(cluster: Arc<TestCluster>) -> Result<()> {
    build_web_image(WEB_IMAGE).await?;
    build_web_image(WEB_IMAGE_2).await?;
    let k = Verbs::new(&cluster).await?;
    let apply = ["apply", "-f", MANIFEST];
    k.ok(&["apply", "-f", MANIFEST, "--dry-run=server"], &["created (server dry run)"]).await?;
    let created = k.ok(&apply, &[]).await?;
    let lines: Vec<&str> = created.lines().collect();
    ensure!(lines.len() == 11, "{created}");
    ensure!(lines.iter().all(|line| line.ends_with(" created")), "{created}");
    // What the server fills in is not a change. kubectl itself calls two of them configured: it
    // finds stringData in no Secret, and replaces a budget's selector by itself.
    let before = versions(&k).await?;
    let again = k.ok(&apply, &[]).await?;
    let changed = again.lines().filter(|line| !line.ends_with(" unchanged"));
    let changed: Vec<&str> = changed.filter_map(|line| line.split('/').next()).collect();
    ensure!(changed.iter().all(|kind| ["secret", "poddisruptionbudget.policy"].contains(kind)));
    ensure!(versions(&k).await? == before, "something was written: {before}\n{again}");
    k.ok(&["diff", "-f", MANIFEST], &[]).await?;
    k.ok(&["rollout", "status", "deploy/blog", "--timeout=60s"], &["successfully rolled out"])
        .await?;
    k.ok(&["rollout", "status", "sts/blog-db", "--timeout=60s"], &["roll out complete"]).await?;
    k.ok(
        &["wait", "job/blog-migrate", "--for=condition=Complete", "--timeout=60s"],
        &["condition met"],
    )
    .await?;
    let kinds = ["deploy", "svc", "cm", "secret", "job", "cj", "sts", "ing", "hpa", "pdb"];
    for kind in kinds {
        k.ok(&["get", kind, "-l", PART], &["NAME", "AGE", "blog"]).await?;
    }
    k.ok(&["get", "deploy,sts", "-o", "wide", "-l", PART], &["2/2", WEB_IMAGE]).await?;
    k.ok(&["get", "endpointslices", "-l", "kubernetes.io/service-name=blog"], &["8080"]).await?;
    k.ok(&["get", "all", "-l", PART], &["deployment.apps/blog", "cronjob.batch/blog-clean"])
        .await?;
    for name in [
        "deploy/blog",
        "sts/blog-db",
        "svc/blog",
        "job/blog-migrate",
        "cj/blog-clean",
        "ing/blog",
        "hpa/blog",
        "pdb/blog",
    ] {
        k.ok(&["describe", name], &["Name:", "blog", "Events:"]).await?;
    }
    Ok(())
}

/// Revisions of what only users change.
async fn versions(k: &Verbs) -> Result<String> {
    let all = ["get", "cm,secret,svc,cj,ing", "-l", PART, "-o"];
    let shown = "jsonpath={range .items[*]}{.kind}/{.metadata.name}@{.metadata.resourceVersion} ";
    let budget = ["get", "pdb", "blog", "-o", "jsonpath={.metadata.generation}"];
    Ok(k.0.ok(&[&all[..], &[&format!("{shown}{{end}}")]].concat()).await?
        + &k.0.ok(&budget).await?)
}

async fn it_is_rolled_out_undone_and_scaled(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Verbs::new(&cluster).await?;
    let image = format!("web={WEB_IMAGE_2}");
    k.ok(&["set", "image", "deploy/blog", &image], &["image updated"]).await?;
    k.ok(&["rollout", "status", "deploy/blog", "--timeout=60s"], &["successfully rolled out"])
        .await?;
    k.ok(&["rollout", "history", "deploy/blog"], &["REVISION", "\n1 ", "\n2 "]).await?;
    k.ok(&["rollout", "history", "deploy/blog", "--revision=2"], &[WEB_IMAGE_2]).await?;
    k.ok(&["rollout", "undo", "deploy/blog"], &["rolled back"]).await?;
    k.ok(&["rollout", "status", "deploy/blog", "--timeout=60s"], &["successfully rolled out"])
        .await?;
    k.ok(&["get", "deploy/blog", "-o", "jsonpath={..image}"], &[WEB_IMAGE]).await?;
    k.ok(&["rollout", "restart", "sts/blog-db"], &["restarted"]).await?;
    k.ok(&["rollout", "status", "sts/blog-db", "--timeout=90s"], &["roll out complete"]).await?;
    k.ok(&["rollout", "history", "sts/blog-db"], &["\n1 ", "\n2 "]).await?;
    k.ok(&["rollout", "undo", "sts/blog-db"], &["rolled back"]).await?;
    k.ok(&["scale", "sts/blog-db", "--replicas=3"], &["scaled"]).await?;
    k.ok(&["rollout", "status", "sts/blog-db", "--timeout=90s"], &["complete"]).await?;
    k.ok(&["scale", "deploy/blog", "--current-replicas=2", "--replicas=3"], &["scaled"]).await?;
    let ready =
        ["wait", "deploy/blog", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=60s"];
    k.ok(&ready, &["condition met"]).await?;
    k.ok(&["create", "job", "by-hand", "--from=cronjob/blog-clean"], &["created"]).await?;
    k.ok(&["wait", "job/by-hand", "--for=condition=Complete", "--timeout=60s"], &[]).await?;
    k.ok(&["logs", "job/by-hand"], &["cleaned"]).await?;
    k.ok(&["delete", "job", "by-hand"], &["deleted"]).await.map(drop)
}

async fn it_is_looked_into(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Verbs::new(&cluster).await?;
    k.ok(&["logs", "deploy/blog"], &["hello from the blog"]).await?;
    k.ok(&["logs", "-l", "app=blog-db", "--prefix", "--tail=1"], &["blog-db-0", "blog-db-1"])
        .await?;
    k.ok(&["logs", "job/blog-migrate"], &["migrated"]).await?;
    k.ok(&["exec", "blog-db-0", "--", "hostname"], &["blog-db-0"]).await?;
    k.ok(&["exec", "deploy/blog", "--", "cat", "/etc/blog/settings.ini"], &["title = A blog"])
        .await?;
    k.ok(&["exec", "deploy/blog", "--", "env"], &["PASSWORD=open sesame"]).await?;
    k.ok(&["exec", "blog-db-0", "--", "wget", "-q", "-O-", "http://blog/"], &["it works"]).await?;
    k.ok(&["top", "nodes"], &["n1", "CPU"]).await?;
    k.ok(&["events", "--for", "deployment/blog"], &["ScalingReplicaSet"]).await?;
    forwarded(&k, "svc/blog", ":80").await?;
    forwarded(&k, "blog-db-1", ":8080").await
}

async fn forwarded(k: &Verbs, what: &str, port: &str) -> Result<()> {
    let mut forward = k.0.spawn(&["port-forward", what, port])?;
    let mut lines = BufReader::new(forward.stdout.take().context("no output")?).lines();
    let line = tokio::time::timeout(SOON, lines.next_line()).await.context("no port")??;
    let line = line.context("port-forward has ended")?;
    let port = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:"));
    let address = format!("127.0.0.1:{}", port.with_context(|| line.clone())?);
    wait_for("the page", SOON, async || {
        let limit = Duration::from_secs(5);
        let page = quorate_testkit::http::get(address.parse()?, "/", limit).await?;
        ensure!(format!("{page:?}").contains("it works"), "{page:?}");
        Ok(())
    })
    .await?;
    println!("  pass  kubectl {} port-forward {what}", k.0.version);
    forward.kill().await?;
    Ok(())
}

async fn a_node_is_drained_under_it(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Verbs::new(&cluster).await?;
    let node = k.0.ok(&["get", "pod", "blog-db-0", "-o", "jsonpath={.spec.nodeName}"]).await?;
    let drain = [
        "drain",
        &node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=80s",
    ];
    k.ok(&drain, &["drained"]).await?;
    k.ok(&["get", "node", &node], &["SchedulingDisabled"]).await?;
    k.ok(&["rollout", "status", "deploy/blog", "--timeout=60s"], &["successfully rolled out"])
        .await?;
    k.ok(&["rollout", "status", "sts/blog-db", "--timeout=60s"], &["complete"]).await?;
    let pods =
        ["get", "pods", "-l", "app in (blog, blog-db)", "-o", "jsonpath={.items[*].spec.nodeName}"];
    let nodes = k.0.ok(&pods).await?;
    ensure!(!nodes.split_whitespace().any(|other| other == node), "{node} in {nodes}");
    k.ok(&["uncordon", &node], &["uncordoned"]).await.map(drop)
}

async fn it_is_changed_and_deleted(cluster: Arc<TestCluster>) -> Result<()> {
    let k = Verbs::new(&cluster).await?;
    let changed = std::fs::read_to_string(MANIFEST)?.replace("greeting: hello", "greeting: bye");
    let applied = k.0.apply(&changed).await?;
    let configured: Vec<&str> =
        applied.lines().filter(|line| line.ends_with(" configured")).collect();
    // What was scaled by hand goes back with it.
    ensure!(configured.contains(&"configmap/blog-config configured"), "{applied}");
    println!("  pass  kubectl {} apply of a change: {}", k.0.version, configured.join(", "));
    k.ok(&["delete", "-f", MANIFEST, "--timeout=80s"], &["deployment.apps \"blog\" deleted"])
        .await?;
    let selector = "app in (blog, blog-db)";
    k.ok(&["wait", "--for=delete", "pod", "-l", selector, "--timeout=60s"], &[]).await?;
    let left = k.ok(&["get", "all,cm,secret,ing,pdb", "-l", PART], &[]).await?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
