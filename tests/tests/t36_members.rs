//! Masters come and go: replaced, rebuilt, and a whole cluster made from a snapshot. Real
//! processes, as an operator starts them.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::{Client, ClientOptions};
use quorate_testkit::ports::PortBase;
use quorate_testkit::process::{self, Output};
use quorate_testkit::{Options, TestCluster, cases, suite, wait_for};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let cases = cases![
        a_snapshot_makes_a_new_cluster,
        a_state_is_rebuilt_from_the_others,
        a_master_that_is_not_admitted_names_no_members,
        // Last: two masters are left.
        a_dead_master_is_replaced_by_a_new_one,
    ];
    suite::main(Options { nodes: 0, insecure: true, ..Options::default() }, cases)
}

/// A master that the test itself starts. Dropping it kills it.
struct Master {
    child: Child,
    url: String,
    log: PathBuf,
}

/// Where a master is to be reached; no other cluster takes its ports.
struct Place {
    client: String,
    peer: String,
    _ports: PortBase,
}

impl Place {
    fn find() -> Result<Self> {
        let ports = PortBase::reserve(1)?;
        let at = |offset| format!("127.0.0.1:{}", ports.number() + offset);
        Ok(Self { client: at(1), peer: at(101), _ports: ports })
    }

    fn client_url(&self) -> String {
        format!("http://{}", self.client)
    }

    fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }

    /// As `--initial-masters` wants it.
    fn entry(&self, name: &str) -> String {
        format!("{name}={},{}", self.client_url(), self.peer_url())
    }
}

impl Master {
    fn start(
        cluster: &TestCluster,
        (name, place): (&str, &Place),
        (cluster_id, masters): (&str, &str),
        data_dir: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let log = cluster.dir().join(format!("{name}.log"));
        let out = std::fs::File::create(&log)?;
        let child = Command::new(cluster.binary())
            .args(["master", "--name", name, "--insecure", "--cluster-id", cluster_id])
            .args(["--listen", &place.client, "--peer-listen", &place.peer])
            .args(["--initial-masters", masters, "--data-dir"])
            .arg(data_dir)
            .args(more)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, url: place.client_url(), log })
    }

    /// Waits until it answers a linearizable read, and returns the value of `key`.
    async fn get(&mut self, key: &str) -> Result<String> {
        let url = self.url.clone();
        let value = wait_for(&format!("an answer of {url}"), PATIENCE, async || {
            ensure!(self.child.try_wait()?.is_none(), "it has ended");
            etcdctl(&url, &["get", key, "--print-value-only"]).await?.ok()
        })
        .await;
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        Ok(value.with_context(log)?.0.trim_end().to_owned())
    }
}

async fn etcdctl(endpoints: &str, args: &[&str]) -> Result<Output> {
    let args = [&["--endpoints", endpoints, "--command-timeout", "10s"], args].concat();
    let env = [("ETCDCTL_API", std::ffi::OsStr::new("3"))];
    process::run("etcdctl", &args, &env, None)
        .await
        .context("etcdctl is in Debian's package etcd-client; deploy/install-deps.sh installs it")
}

async fn put(cluster: &TestCluster, key: &str, value: &str) -> Result<()> {
    let urls: Vec<_> = cluster.file()?.masters.into_iter().map(|master| master.url).collect();
    wait_for("a write", PATIENCE, async || {
        etcdctl(&urls.join(","), &["put", key, value]).await?.ok()
    })
    .await
    .map(drop)
}

/// What `--initial-masters` said when the masters of the cluster were started.
fn initial_masters(cluster: &TestCluster) -> Result<String> {
    let args = arguments(cluster, "m1")?;
    let at = args.iter().position(|arg| arg == "--initial-masters");
    let value = at.and_then(|at| args.get(at + 1)).cloned();
    value.with_context(|| format!("no --initial-masters in {args:?}"))
}

/// The arguments of a running master.
fn arguments(cluster: &TestCluster, name: &str) -> Result<Vec<String>> {
    let pid = *cluster.pids()?.get(name).with_context(|| format!("no {name}"))?;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    Ok(line.split_terminator('\0').skip(1).map(str::to_owned).collect())
}

/// (name, learner, leader) of each member.
async fn members(cluster: &TestCluster) -> Result<Vec<(String, bool, bool)>> {
    let listed = cluster.quorate(&["members", "list", "-o", "json"]).await?.json()?;
    let listed = listed.as_array().context("a list")?.iter();
    let member = |m: &serde_json::Value| {
        let name = m["name"].as_str().unwrap_or_default().to_owned();
        (name, m["learner"] == true, m["leader"] == true)
    };
    Ok(listed.map(member).collect())
}

async fn a_dead_master_is_replaced_by_a_new_one(cluster: Arc<TestCluster>) -> Result<()> {
    let leader = cluster.leader().await?;
    let dead = ["m3", "m2"].into_iter().find(|name| *name != leader).context("a follower")?;
    put(&cluster, "replaced/before", "1").await?;
    cluster.kill(dead).await?;
    put(&cluster, "replaced/meanwhile", "2").await?;

    let place = Place::find()?;
    let (client, peer) = (place.client_url(), place.peer_url());
    let urls = ["--client-url", client.as_str(), "--peer-url", peer.as_str()];
    let replace = [&["members", "replace", dead, dead], urls.as_slice()].concat();
    cluster.quorate(&replace).await?.fails_with(&["name of its own"])?;
    let replace = [&["members", "replace", dead, "m4"], urls.as_slice()].concat();
    let said = cluster.quorate(&replace).await?.ok()?;
    ensure!(said.contains(&format!("{dead} removed")) && said.contains("m4 added"), "{said}");

    let known = format!("{};{}", initial_masters_of(&cluster, &leader)?, place.entry("m4"));
    let id = cluster.file()?.cluster_id;
    let data = cluster.dir().join("m4-data");
    let mut m4 = Master::start(&cluster, ("m4", &place), (&id, &known), &data, &["--join"])?;
    ensure!(m4.get("replaced/meanwhile").await? == "2");
    wait_for("a vote for m4", PATIENCE, async || {
        let members = members(&cluster).await?;
        let names: Vec<_> = members.iter().map(|(name, ..)| name.as_str()).collect();
        ensure!(names.contains(&"m4") && !names.contains(&dead), "{members:?}");
        ensure!(members.iter().all(|(_, learner, _)| !learner), "{members:?}");
        Ok(())
    })
    .await?;

    // Without its vote there would be no majority now.
    let third = cluster.file()?.masters.into_iter().map(|master| master.name);
    let third = third.into_iter().find(|name| *name != leader && name != dead).context("three")?;
    cluster.kill(&third).await?;
    put(&cluster, "replaced/by two", "3").await?;
    ensure!(m4.get("replaced/by two").await? == "3");
    cluster.start_again(&third)?;

    // The removed one comes back from the dead, learns that it is none of them, and ends.
    cluster.start_again(dead)?;
    cluster.wait_ended(dead).await?;

    cluster.quorate(&["members", "remove", "m4"]).await?.ok()?;
    wait_for("the end of m4", PATIENCE, async || {
        ensure!(m4.child.try_wait()?.is_some(), "it still runs");
        Ok(())
    })
    .await?;
    let names: Vec<_> = members(&cluster).await?.into_iter().map(|(name, ..)| name).collect();
    ensure!(names.len() == 2 && !names.iter().any(|name| name == "m4"), "{names:?}");
    put(&cluster, "replaced/after", "4").await
}

/// The entry of one master.
fn initial_masters_of(cluster: &TestCluster, name: &str) -> Result<String> {
    let all = initial_masters(cluster)?;
    let prefix = format!("{name}=");
    let found = all.split(';').find(|entry| entry.starts_with(&prefix));
    found.map(str::to_owned).with_context(|| format!("no {name} in {all}"))
}

async fn a_state_is_rebuilt_from_the_others(cluster: Arc<TestCluster>) -> Result<()> {
    put(&cluster, "rebuilt", "yes").await?;
    let leader = cluster.leader().await?;
    let members = members(&cluster).await?;
    let (name, ..) = members.iter().find(|(name, ..)| *name != leader).context("a follower")?;
    let args = arguments(&cluster, name)?;
    cluster.kill(name).await?;

    let log = cluster.dir().join("rebuild.log");
    let out = std::fs::File::create(&log)?;
    let mut rebuilt = Command::new(cluster.binary())
        .args(&args)
        .arg("--rebuild")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .kill_on_drop(true)
        .spawn()?;
    let url = cluster.file()?.masters.into_iter().find(|master| master.name == *name);
    let url = url.context("its address")?.url;
    wait_for("the rebuilt master", PATIENCE, async || {
        ensure!(rebuilt.try_wait()?.is_none(), "{}", std::fs::read_to_string(&log)?);
        let value = etcdctl(&url, &["get", "rebuilt", "--print-value-only"]).await?.ok()?;
        ensure!(value.trim_end() == "yes", "{value:?}");
        Ok(())
    })
    .await?;
    let said = std::fs::read_to_string(&log)?;
    ensure!(said.contains("the state is that of another master now"), "{said}");
    rebuilt.kill().await?;
    // Without the flag it goes on from there.
    cluster.start_again(name)?;
    put(&cluster, "rebuilt", "twice").await
}

async fn a_master_that_is_not_admitted_names_no_members(cluster: Arc<TestCluster>) -> Result<()> {
    // Its disk is empty, and nobody says that it may take part.
    let (first, own, third) = (Place::find()?, Place::find()?, Place::find()?);
    let masters = [first.entry("alone-1"), own.entry("alone-2"), third.entry("alone-3")].join(";");
    let data = cluster.dir().join("alone-2");
    let identity = ("alone", masters.as_str());
    let mut master = Master::start(&cluster, ("alone-2", &own), identity, &data, &[])?;
    let options = ClientOptions { timeout: Duration::from_secs(2), ..ClientOptions::default() };
    let client = Client::new(vec![own.client_url()], options)?;
    wait_for("its status", PATIENCE, async || {
        ensure!(master.child.try_wait()?.is_none(), "{}", std::fs::read_to_string(&master.log)?);
        let status = client.status().await?;
        ensure!(status.name == "alone-2", "{status:?}");
        Ok(())
    })
    .await?;
    let error = client.members().await.err().context("it names members")?;
    ensure!(error.message.contains("has not been admitted"), "{error}");
    let listed = etcdctl(&own.client_url(), &["member", "list"]).await?;
    listed.fails_with(&["member is not part of the cluster yet"])?;
    Ok(())
}

async fn a_snapshot_makes_a_new_cluster(cluster: Arc<TestCluster>) -> Result<()> {
    for number in 0..50 {
        put(&cluster, &format!("kept/{number:02}"), "before").await?;
    }
    let file = cluster.dir().join("state.snapshot");
    let path = file.to_str().context("a path in UTF-8")?;
    let saved = cluster.quorate(&["snapshot", "save", path]).await?.ok()?;
    ensure!(saved.starts_with("saved revision "), "{saved}");
    put(&cluster, "kept/00", "after").await?;
    cluster.quorate(&["snapshot", "save", path]).await?.fails_with(&["exists already"])?;
    let verified = cluster.quorate(&["snapshot", "verify", path]).await?.ok()?;
    ensure!(verified.starts_with("intact: revision "), "{verified}");

    let damaged = cluster.dir().join("damaged.snapshot");
    let mut bytes = std::fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes)?;
    let damaged = damaged.to_str().context("a path in UTF-8")?;
    cluster.quorate(&["snapshot", "verify", damaged]).await?.fails_with(&[])?;

    let place = Place::find()?;
    let data = cluster.dir().join("n1-data");
    let masters = place.entry("n1");
    let to = ["--data-dir", data.to_str().context("a path in UTF-8")?];
    let of = ["--name", "n1", "--cluster-id", "from-snapshot", "--initial-masters", &masters];
    let restore = |file| [&["snapshot", "restore", file], to.as_slice(), of.as_slice()].concat();
    cluster.quorate(&restore(damaged)).await?.fails_with(&[])?;
    cluster.quorate(&restore(path)).await?.ok()?;
    cluster.quorate(&restore(path)).await?.fails_with(&["belongs to a master already"])?;
    let new = ("from-snapshot", masters.as_str());
    let mut n1 = Master::start(&cluster, ("n1", &place), new, &data, &[])?;
    ensure!(n1.get("kept/00").await? == "before", "what was written after the snapshot");
    ensure!(n1.get("kept/49").await? == "before");
    etcdctl(&n1.url, &["put", "kept/00", "again"]).await?.ok()?;
    ensure!(n1.get("kept/00").await? == "again");
    Ok(())
}
