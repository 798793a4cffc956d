//! etcd's own client, Debian's etcdctl, against three masters.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_testkit::process::{self, Output};
use quorate_testkit::{Options, TestCluster, cases, etcdctl, suite, wait_for};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// For waits on a healthy cluster.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let cases = cases![
        keys_come_and_go,
        transactions_choose_their_branch,
        watches_see_changes_from_any_revision,
        leases_take_their_keys_along,
        locks_and_elections_have_one_holder,
        members_status_and_hashes_agree,
        compaction_forgets_and_says_so,
        alarms_are_listed_and_disarmed,
        a_snapshot_is_whole,
        objects_are_read_only,
        users_and_roles,
        a_master_dies_and_clients_go_on,
    ];
    suite::main(Options { nodes: 0, insecure: true, ..Options::default() }, cases)
}

/// All masters, as etcdctl wants them.
fn endpoints(cluster: &TestCluster) -> Result<String> {
    let masters = cluster.file()?.masters;
    Ok(masters.into_iter().map(|master| master.url).collect::<Vec<_>>().join(","))
}

async fn etcdctl(cluster: &TestCluster, args: &[&str]) -> Result<Output> {
    etcdctl_with(cluster, args, None).await
}

async fn etcdctl_with(cluster: &TestCluster, args: &[&str], input: Option<&str>) -> Result<Output> {
    etcdctl::etcdctl(&endpoints(cluster)?, args, input).await
}

/// What etcdctl prints when it must succeed.
async fn ok(cluster: &TestCluster, args: &[&str]) -> Result<String> {
    etcdctl(cluster, args).await?.ok()
}

async fn json(cluster: &TestCluster, args: &[&str]) -> Result<Value> {
    etcdctl(cluster, &[args, &["-w", "json"]].concat()).await?.json()
}

async fn revision(cluster: &TestCluster) -> Result<u64> {
    let got = json(cluster, &["get", "no-such-key"]).await?;
    got["header"]["revision"].as_u64().with_context(|| format!("no revision in {got}"))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// An etcdctl that stays: what it prints comes line by line. Dropping it kills it.
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<Box<dyn AsyncRead + Unpin + Send>>>,
}

impl Running {
    fn start(cluster: &TestCluster, args: &[&str]) -> Result<Self> {
        let (program, env) = etcdctl::program();
        let mut child = Command::new(program)
            .args(["--endpoints", &endpoints(cluster)?])
            .args(args)
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let stderr: Box<dyn AsyncRead + Unpin + Send> =
            Box::new(child.stderr.take().context("stderr")?);
        Ok(Self { child, stdin, stdout, stderr: BufReader::new(stderr).lines() })
    }

    async fn line(&mut self) -> Result<String> {
        match tokio::time::timeout(PATIENCE, self.stdout.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => {
                let error = self.stderr.next_line().await?.unwrap_or_default();
                bail!("etcdctl ended: {error}")
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("etcdctl printed nothing within {PATIENCE:?}"),
        }
    }

    async fn expect(&mut self, wanted: &[&str]) -> Result<()> {
        for wanted in wanted {
            let mut line = self.line().await?;
            // An answer about all watches is printed once for each.
            while line.starts_with("progress notify:") {
                line = self.line().await?;
            }
            ensure!(line == *wanted, "{line:?} instead of {wanted:?}");
        }
        Ok(())
    }

    /// Ctrl-C, and waits for the end.
    async fn interrupt(mut self) -> Result<()> {
        let pid = self.child.id().context("etcdctl has ended")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        drop(self.stdin);
        tokio::time::timeout(PATIENCE, self.child.wait()).await.context("the end of etcdctl")??;
        Ok(())
    }
}

async fn keys_come_and_go(cluster: Arc<TestCluster>) -> Result<()> {
    ensure!(ok(&cluster, &["put", "k/a", "1"]).await? == "OK\n");
    ok(&cluster, &["put", "k/b", "2"]).await?;
    let replaced = ok(&cluster, &["put", "k/a", "3", "--prev-kv"]).await?;
    ensure!(lines(&replaced) == ["OK", "k/a", "1"], "{replaced}");
    let all = ok(&cluster, &["get", "--prefix", "k/"]).await?;
    ensure!(lines(&all) == ["k/a", "3", "k/b", "2"], "{all}");
    let descending = ok(
        &cluster,
        &["get", "--prefix", "k/", "--order", "DESCEND", "--keys-only", "--limit", "1"],
    );
    ensure!(lines(&descending.await?)[0] == "k/b");
    let first = json(&cluster, &["get", "k/a"]).await?["kvs"][0]["create_revision"].to_string();
    let old = ok(&cluster, &["get", "k/a", "--rev", &first, "--consistency", "s"]).await?;
    ensure!(lines(&old) == ["k/a", "1"], "at revision {first}: {old}");
    let deleted = ok(&cluster, &["del", "--prefix", "k/", "--prev-kv"]).await?;
    ensure!(lines(&deleted) == ["2", "k/a", "3", "k/b", "2"], "{deleted}");
    ensure!(ok(&cluster, &["get", "--prefix", "k/"]).await?.is_empty());
    etcdctl(&cluster, &["put", "", "x"]).await?.fails_with(&["key is not provided"]).map(drop)
}

async fn transactions_choose_their_branch(cluster: Arc<TestCluster>) -> Result<()> {
    ok(&cluster, &["put", "t", "old"]).await?;
    let txn = "value(\"t\") = \"old\"\nversion(\"t\") = \"1\"\n\nput t new\nget t\n\nget t\n\n";
    let first = etcdctl_with(&cluster, &["txn"], Some(txn)).await?.ok()?;
    ensure!(lines(&first) == ["SUCCESS", "", "OK", "", "t", "new"], "{first}");
    let second = etcdctl_with(&cluster, &["txn"], Some(txn)).await?.ok()?;
    ensure!(lines(&second) == ["FAILURE", "", "t", "new"], "{second}");
    let twice = "\nput t a\nput t b\n\n\n";
    let refused = etcdctl_with(&cluster, &["txn"], Some(twice)).await?;
    refused.fails_with(&["duplicate key given in txn request"]).map(drop)
}

async fn watches_see_changes_from_any_revision(cluster: Arc<TestCluster>) -> Result<()> {
    ok(&cluster, &["put", "w/a", "1"]).await?;
    let start = revision(&cluster).await?.to_string();
    ok(&cluster, &["put", "w/b", "2"]).await?;
    let mut watch =
        Running::start(&cluster, &["watch", "--prefix", "w/", "--rev", &start, "--prev-kv"])?;
    watch.expect(&["PUT", "w/a", "1", "PUT", "w/b", "2"]).await?;
    ok(&cluster, &["put", "w/a", "3"]).await?;
    watch.expect(&["PUT", "w/a", "1", "w/a", "3"]).await?;
    ok(&cluster, &["del", "w/b"]).await?;
    watch.expect(&["DELETE", "w/b", "2", "w/b", ""]).await?;

    // Many watches on one stream.
    let mut many = Running::start(&cluster, &["watch", "-i"])?;
    many.stdin.write_all(b"watch m/a\nwatch m/b\nprogress\n").await?;
    let progress = many.line().await?;
    ensure!(progress.starts_with("progress notify:"), "{progress}");
    ok(&cluster, &["put", "m/b", "x"]).await?;
    many.expect(&["PUT", "m/b", "x"]).await?;
    ok(&cluster, &["put", "m/a", "y"]).await?;
    many.expect(&["PUT", "m/a", "y"]).await
}

/// The id in "lease 694d… granted with TTL(60s)".
fn lease_id(text: &str) -> Result<&str> {
    text.split_whitespace().nth(1).with_context(|| format!("no lease in {text:?}"))
}

async fn leases_take_their_keys_along(cluster: Arc<TestCluster>) -> Result<()> {
    let granted = ok(&cluster, &["lease", "grant", "300"]).await?;
    let lease = lease_id(&granted)?;
    ok(&cluster, &["put", "l/a", "1", "--lease", lease]).await?;
    let seen = ok(&cluster, &["lease", "timetolive", lease, "--keys"]).await?;
    ensure!(seen.contains("granted with TTL(300s)") && seen.contains("[l/a]"), "{seen}");
    let list = ok(&cluster, &["lease", "list"]).await?;
    ensure!(list.contains(lease), "{list}");
    let kept = ok(&cluster, &["lease", "keep-alive", "--once", lease]).await?;
    ensure!(kept.contains("keepalived with TTL(300)"), "{kept}");
    ok(&cluster, &["lease", "revoke", lease]).await?;
    ensure!(ok(&cluster, &["get", "l/a"]).await?.is_empty(), "the key outlived its lease");
    let gone = ok(&cluster, &["lease", "timetolive", lease]).await?;
    ensure!(gone.contains("already expired"), "{gone}");
    etcdctl(&cluster, &["put", "l/a", "1", "--lease", lease])
        .await?
        .fails_with(&["requested lease not found"])?;

    // Long enough for the start of one more etcdctl.
    let short = ok(&cluster, &["lease", "grant", "5"]).await?;
    ok(&cluster, &["put", "l/b", "1", "--lease", lease_id(&short)?]).await?;
    cluster
        .wait("the end of a lease that nobody keeps alive", async || {
            ensure!(ok(&cluster, &["get", "l/b"]).await?.is_empty(), "l/b is still there");
            Ok(())
        })
        .await
}

async fn locks_and_elections_have_one_holder(cluster: Arc<TestCluster>) -> Result<()> {
    let mut first = Running::start(&cluster, &["lock", "mutex"])?;
    let key = first.line().await?;
    ensure!(key.starts_with("mutex/"), "{key}");
    let mut second = Running::start(&cluster, &["lock", "mutex"])?;
    cluster
        .wait("a second one in the queue", async || {
            let all = ok(&cluster, &["get", "--prefix", "mutex/", "--keys-only"]).await?;
            ensure!(all.split_whitespace().count() == 2, "{all}");
            Ok(())
        })
        .await?;
    let early = tokio::time::timeout(Duration::from_millis(200), second.stdout.next_line()).await;
    ensure!(early.is_err(), "two hold the lock: {early:?}");
    first.interrupt().await?;
    let next = second.line().await?;
    ensure!(next.starts_with("mutex/") && next != key, "{next}");
    second.interrupt().await?;

    let mut leader = Running::start(&cluster, &["elect", "post", "me"])?;
    let key = leader.line().await?;
    ensure!(key.starts_with("post/") && leader.line().await? == "me", "{key}");
    let mut observer = Running::start(&cluster, &["elect", "-l", "post"])?;
    observer.expect(&[&key, "me"]).await?;
    leader.interrupt().await
}

async fn members_status_and_hashes_agree(cluster: Arc<TestCluster>) -> Result<()> {
    let list = ok(&cluster, &["member", "list"]).await?;
    ensure!(lines(&list).len() == 3 && list.matches("started").count() == 3, "{list}");
    let health = etcdctl(&cluster, &["endpoint", "health"]).await?;
    let health = format!("{}{}", health.stdout, health.stderr);
    ensure!(health.matches("is healthy").count() == 3, "{health}");
    let status = json(&cluster, &["endpoint", "status"]).await?;
    let all = status.as_array().context("a list of three")?;
    let leaders: Vec<_> = all.iter().map(|one| &one["Status"]["leader"]).collect();
    ensure!(
        leaders.len() == 3 && leaders.iter().all(|leader| leader.as_u64() > Some(0)),
        "{status}"
    );
    ensure!(leaders[0] == leaders[1] && leaders[1] == leaders[2], "{status}");
    ok(&cluster, &["put", "h", "1"]).await?;
    let at = revision(&cluster).await?.to_string();
    cluster
        .wait("equal hashes", async || {
            let hashes = json(&cluster, &["endpoint", "hashkv", "--rev", &at]).await?;
            let all: Vec<_> =
                hashes.as_array().into_iter().flatten().map(|one| &one["HashKV"]["hash"]).collect();
            ensure!(all.len() == 3 && all[0] == all[1] && all[1] == all[2], "{hashes}");
            Ok(())
        })
        .await?;
    let leader = cluster.leader().await?;
    let other =
        cluster.file()?.masters.into_iter().find(|m| m.name != leader).context("another")?;
    let members = json(&cluster, &["member", "list"]).await?;
    let id = members["members"].as_array().into_iter().flatten().find(|m| m["name"] == other.name);
    let id = id.and_then(|m| m["ID"].as_u64()).context("its id")?;
    let moved = ok(&cluster, &["move-leader", &format!("{id:x}")]).await?;
    ensure!(moved.contains("Leadership transferred"), "{moved}");
    cluster.wait_leader(&leader).await.map(drop)
}

async fn compaction_forgets_and_says_so(cluster: Arc<TestCluster>) -> Result<()> {
    for value in ["1", "2", "3"] {
        ok(&cluster, &["put", "c", value]).await?;
    }
    let now = revision(&cluster).await?;
    let (text, old) = (now.to_string(), (now - 1).to_string());
    let done = ok(&cluster, &["compact", &text, "--physical"]).await?;
    ensure!(done.contains(&format!("compacted revision {now}")), "{done}");
    let gone = etcdctl(&cluster, &["get", "c", "--rev", &old]).await?;
    gone.fails_with(&["required revision has been compacted"])?;
    let again = etcdctl(&cluster, &["compact", &text]).await?;
    again.fails_with(&["required revision has been compacted"])?;
    let future = etcdctl(&cluster, &["compact", "999999"]).await?;
    future.fails_with(&["required revision is a future revision"])?;
    let watch = etcdctl(&cluster, &["watch", "c", "--rev", &old]).await?;
    watch.fails_with(&["required revision has been compacted"])?;
    let defragmented = ok(&cluster, &["defrag"]).await?;
    ensure!(defragmented.matches("Finished").count() == 3, "{defragmented}");
    Ok(())
}

async fn alarms_are_listed_and_disarmed(cluster: Arc<TestCluster>) -> Result<()> {
    ensure!(ok(&cluster, &["alarm", "list"]).await?.is_empty());
    let text = ok(&cluster, &["alarm", "disarm"]).await?;
    ensure!(text.is_empty(), "{text}");
    Ok(())
}

async fn a_snapshot_is_whole(cluster: Arc<TestCluster>) -> Result<()> {
    ok(&cluster, &["put", "s", "1"]).await?;
    let master = cluster.file()?.masters.remove(0);
    let file = cluster.dir().join("etcdctl.snapshot");
    let path = file.to_string_lossy().into_owned();
    let (program, env) = etcdctl::program();
    let args = ["--endpoints", &master.url, "snapshot", "save", &path];
    let saved = process::run(program, &args, &env, None).await?.ok()?;
    ensure!(saved.contains("Snapshot saved"), "{saved}");
    let size = std::fs::metadata(&file)?.len();
    ensure!(size > 512 && size % 512 == 32, "{size} bytes are not blocks and a checksum");
    Ok(())
}

async fn objects_are_read_only(cluster: Arc<TestCluster>) -> Result<()> {
    let objects =
        ok(&cluster, &["get", "--prefix", "/registry/", "--keys-only", "--limit", "1"]).await?;
    ensure!(objects.starts_with("/registry/"), "{objects}");
    let put = etcdctl(&cluster, &["put", "/registry/pods/default/x", "{}"]).await?;
    put.fails_with(&["permission denied"])?;
    let all = etcdctl(&cluster, &["del", "--prefix", ""]).await?;
    all.fails_with(&["permission denied"]).map(drop)
}

async fn users_and_roles(cluster: Arc<TestCluster>) -> Result<()> {
    ok(&cluster, &["user", "add", "root:secret"]).await?;
    ok(&cluster, &["role", "add", "app"]).await?;
    ok(&cluster, &["role", "grant-permission", "app", "readwrite", "--prefix", "app/"]).await?;
    ok(&cluster, &["user", "add", "app:pass"]).await?;
    ok(&cluster, &["user", "grant-role", "app", "app"]).await?;
    ok(&cluster, &["user", "grant-role", "root", "root"]).await?;
    let on = ok(&cluster, &["auth", "enable"]).await?;
    ensure!(on.contains("Authentication Enabled"), "{on}");
    let root = ["--user", "root:secret"];
    // Whatever fails, the next test shall not need a password.
    let result = with_users(&cluster).await;
    let off = ok(&cluster, &[&root[..], &["auth", "disable"]].concat()).await?;
    ensure!(off.contains("Authentication Disabled"), "{off}");
    every_master(&cluster, "no password is needed", Output::ok).await?;
    result
}

/// Waits until every master, asked alone, answers as `fits` wants it: each goes by the users that
/// it has seen itself.
async fn every_master(
    cluster: &TestCluster,
    what: &str,
    fits: impl Fn(Output) -> Result<String>,
) -> Result<()> {
    for master in cluster.file()?.masters {
        let get = async || fits(etcdctl::etcdctl(&master.url, &["get", "app/a"], None).await?);
        wait_for(&format!("{what} at {}", master.name), PATIENCE, get).await?;
    }
    Ok(())
}

async fn with_users(cluster: &TestCluster) -> Result<()> {
    let unnamed = |output: Output| output.fails_with(&["user name is empty"]);
    every_master(cluster, "a name is asked for", unnamed).await?;
    let app = ["--user", "app:pass"];
    ok(cluster, &[&app[..], &["put", "app/a", "1"]].concat()).await?;
    let other = etcdctl(cluster, &[&app[..], &["put", "other", "1"]].concat()).await?;
    other.fails_with(&["permission denied"])?;
    let wrong = etcdctl(cluster, &["--user", "app:wrong", "get", "app/a"]).await?;
    wrong.fails_with(&["authentication failed"])?;
    let role = ok(cluster, &["--user", "root:secret", "role", "get", "app"]).await?;
    ensure!(role.contains("[app/, app0) (prefix app/)"), "{role}");
    Ok(())
}

async fn a_master_dies_and_clients_go_on(cluster: Arc<TestCluster>) -> Result<()> {
    let granted = ok(&cluster, &["lease", "grant", "600"]).await?;
    let lease = lease_id(&granted)?;
    ok(&cluster, &["put", "f/lease", "kept", "--lease", lease]).await?;
    let mut watch = Running::start(&cluster, &["watch", "--prefix", "f/"])?;
    // The watch is there when it shows something.
    wait_for("the first event", PATIENCE, async || {
        ok(&cluster, &["put", "f/first", "x"]).await?;
        let shown = tokio::time::timeout(Duration::from_millis(500), watch.line()).await;
        shown.context("nothing yet")?.map(drop)
    })
    .await?;
    let leader = cluster.leader().await?;
    cluster.kill(&leader).await?;
    // etcdctl does not repeat what the dead one took along.
    let soon = async |what: &str, args: &[&str]| {
        let (text, _) = wait_for(what, PATIENCE, async || ok(&cluster, args).await).await?;
        anyhow::Ok(text)
    };
    soon("a write", &["put", "f/after", "y"]).await?;
    loop {
        if watch.line().await? == "f/after" {
            break;
        }
    }
    watch.expect(&["y"]).await?;
    let kept = soon("a read", &["get", "f/lease"]).await?;
    ensure!(lines(&kept) == ["f/lease", "kept"], "{kept}");
    let seen = soon("the lease", &["lease", "timetolive", lease, "--keys"]).await?;
    ensure!(seen.contains("f/lease"), "{seen}");
    cluster.heal().await
}
