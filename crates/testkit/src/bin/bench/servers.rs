//! Three servers of one kind, as processes of this machine, and what they use.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::cluster_client::ClusterClient;
use quorate_testkit::ports::PortBase;
use quorate_testkit::{Options, TestCluster, wait_for};
use tokio::process::{Child, Command};

use crate::client::{self, Kv};

/// Longest time for a start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks of processor time per second in /proc (Linux' USER_HZ, the same on all machines).
const TICKS: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;
const MEGABYTE: f64 = 1e6;
/// Members of etcd.
const MEMBERS: u16 = 3;

/// Which system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    Etcd,
    Quorate,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Quorate => "quorate",
        })
    }
}

enum Processes {
    Etcd(Etcd),
    Quorate(TestCluster),
}

/// Three servers.
pub struct Servers {
    pub kind: Kind,
    /// Where clients reach them.
    pub urls: Vec<String>,
    processes: Processes,
}

impl Servers {
    /// Starts three, and waits until each answers a linearizable read.
    pub async fn start(kind: Kind) -> Result<Self> {
        let processes = match kind {
            Kind::Etcd => Processes::Etcd(Etcd::start()?),
            Kind::Quorate => {
                let options = Options { nodes: 0, insecure: true, ..Options::default() };
                Processes::Quorate(TestCluster::start(options).await?)
            }
        };
        let urls = match &processes {
            Processes::Etcd(etcd) => etcd.urls(),
            Processes::Quorate(cluster) => {
                cluster.file()?.masters.into_iter().map(|master| master.url).collect()
            }
        };
        let servers = Self { kind, urls, processes };
        servers.wait_serving().await?;
        Ok(servers)
    }

    async fn wait_serving(&self) -> Result<()> {
        for url in &self.urls {
            wait_for(&format!("{} at {url}", self.kind), PATIENCE, async || {
                let mut kv = Kv::new(client::connect(url).await?);
                kv.range(client::get(0, false)).await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Kills all, starts them again on their data, and waits until they serve.
    pub async fn restart(&mut self) -> Result<()> {
        match &mut self.processes {
            Processes::Etcd(etcd) => etcd.restart().await?,
            Processes::Quorate(cluster) => {
                let names: Vec<String> =
                    cluster.file()?.masters.into_iter().map(|master| master.name).collect();
                for name in names {
                    cluster.kill(&name).await?;
                }
                cluster.heal().await?;
            }
        }
        self.wait_serving().await
    }

    /// Removes the last member, and adds one without data in its place; returns where clients
    /// reach it.
    pub async fn replace_one(&mut self) -> Result<String> {
        let url = self.urls.last().context("no servers")?.clone();
        let other = self.urls.first().context("no servers")?.clone();
        match &mut self.processes {
            Processes::Etcd(etcd) => etcd.replace_last(&other).await?,
            Processes::Quorate(cluster) => {
                let last = cluster.file()?.masters.pop().context("no masters")?.name;
                let place = cluster.remove_master(&last).await?;
                cluster.add_master(place, |_| Ok(())).await?;
            }
        }
        Ok(url)
    }

    fn pids(&self) -> Vec<i32> {
        match &self.processes {
            Processes::Etcd(etcd) => etcd.pids(),
            Processes::Quorate(cluster) => {
                cluster.pids().map(|pids| pids.into_values().collect()).unwrap_or_default()
            }
        }
    }

    /// Processor time of all three so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.pids().into_iter().filter_map(cpu_ticks).sum::<f64>() / TICKS
    }

    /// Resident memory of all three, in MB.
    pub fn resident_mb(&self) -> f64 {
        self.pids().into_iter().filter_map(resident_pages).sum::<f64>() * PAGE_BYTES / MEGABYTE
    }

    /// Files of all three, in MB.
    pub fn disk_mb(&self) -> f64 {
        let folder = match &self.processes {
            Processes::Etcd(etcd) => etcd.folder.path(),
            Processes::Quorate(cluster) => cluster.dir(),
        };
        size(folder) / MEGABYTE
    }

    pub async fn stop(self) -> Result<()> {
        match self.processes {
            Processes::Etcd(etcd) => etcd.stop().await,
            // Dropping it stops it.
            Processes::Quorate(_) => Ok(()),
        }
    }
}

/// utime and stime: fields 14 and 15 of /proc/PID/stat; the name before them may hold spaces.
fn cpu_ticks(pid: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_pages(pid: i32) -> Option<f64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}

fn size(folder: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0.0 };
    let of = |path: PathBuf| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => size(&path),
        // What is allocated: both systems reserve space ahead.
        Ok(meta) => meta.blocks() as f64 * 512.0,
        Err(_) => 0.0,
    };
    entries.flatten().map(|entry| of(entry.path())).sum()
}

/// Debian's etcd with its own settings, but for the size of its store.
struct Etcd {
    folder: tempfile::TempDir,
    ports: PortBase,
    members: Vec<Child>,
}

impl Etcd {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
        let mut etcd = Self { folder, ports: PortBase::reserve(MEMBERS)?, members: Vec::new() };
        etcd.spawn()?;
        Ok(etcd)
    }

    fn client_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.ports.number() + number)
    }

    fn peer_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.ports.number() + 100 + number)
    }

    fn urls(&self) -> Vec<String> {
        (1..=MEMBERS).map(|number| self.client_url(number)).collect()
    }

    fn spawn(&mut self) -> Result<()> {
        for number in 1..=MEMBERS {
            let child = self.spawn_one(number, "new")?;
            self.members.push(child);
        }
        Ok(())
    }

    fn spawn_one(&self, number: u16, state: &str) -> Result<Child> {
        let all = (1..=MEMBERS).map(|number| format!("e{number}={}", self.peer_url(number)));
        let all = all.collect::<Vec<_>>().join(",");
        let (client, peer) = (self.client_url(number), self.peer_url(number));
        let log = std::fs::File::create(self.folder.path().join(format!("e{number}.log")))?;
        Command::new("etcd")
            .args(["--name", &format!("e{number}"), "--initial-cluster", &all])
            .args(["--initial-cluster-state", state])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--quota-backend-bytes", "8589934592", "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.data(number))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context(
                "starting etcd, of Debian's package etcd-server (deploy/install-deps.sh --bench)",
            )
    }

    fn data(&self, number: u16) -> PathBuf {
        self.folder.path().join(format!("e{number}"))
    }

    async fn replace_last(&mut self, at: &str) -> Result<()> {
        let mut cluster = ClusterClient::new(client::connect(at).await?);
        let members = cluster.member_list(pb::MemberListRequest::default()).await?.into_inner();
        let name = format!("e{MEMBERS}");
        let last = members.members.into_iter().find(|member| member.name == name);
        let id = last.with_context(|| format!("no {name}"))?.id;
        // Members are not changed until all have been connected for some seconds.
        wait_for("removal of a member", PATIENCE, async || {
            Ok(cluster.member_remove(pb::MemberRemoveRequest { id }).await.map(drop)?)
        })
        .await?;
        let mut process = self.members.pop().context("no processes")?;
        // It ends by itself, or not yet.
        process.kill().await?;
        std::fs::remove_dir_all(self.data(MEMBERS))?;
        let peer_ur_ls = vec![self.peer_url(MEMBERS)];
        let request = pb::MemberAddRequest { peer_ur_ls, ..Default::default() };
        wait_for("admission of a member", PATIENCE, async || {
            Ok(cluster.member_add(request.clone()).await.map(drop)?)
        })
        .await?;
        let child = self.spawn_one(MEMBERS, "existing")?;
        self.members.push(child);
        Ok(())
    }

    fn pids(&self) -> Vec<i32> {
        self.members.iter().filter_map(|child| i32::try_from(child.id()?).ok()).collect()
    }

    async fn kill(&mut self) -> Result<()> {
        for mut member in self.members.drain(..) {
            let ended = member.try_wait()?;
            ensure!(ended.is_none(), "a member of etcd ended by itself: {ended:?}");
            member.kill().await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.spawn()
    }

    async fn stop(mut self) -> Result<()> {
        self.kill().await
    }
}
