//! Three of Debian's etcd on this machine, with the defaults that it comes with.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_testkit::links::{Destination, Links};
use quorate_testkit::wait_for;

use super::LIMIT;
use crate::etcd::Etcd;

const MEMBERS: usize = 3;

/// Addresses of one member: where it listens, and where others find it.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    public_client: SocketAddr,
    public_peer: SocketAddr,
}

type Processes = Arc<Mutex<BTreeMap<String, Child>>>;

/// A running cluster. Dropping it kills it.
#[derive(Debug)]
pub(super) struct EtcdCluster {
    members: Vec<Member>,
    processes: Processes,
    links: Option<Links>,
    folder: tempfile::TempDir,
}

impl EtcdCluster {
    pub(super) async fn start(links: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("quorate-chaos-etcd-").tempdir()?;
        let members = (1..=MEMBERS).map(|i| member(i, links)).collect::<Result<Vec<_>>>()?;
        let processes = Processes::default();
        let destinations = members.iter().flat_map(|member| {
            let destination =
                |advertised, real| Destination { name: member.name.clone(), advertised, real };
            [
                destination(member.public_client, member.client),
                destination(member.public_peer, member.peer),
            ]
        });
        let pids = Arc::clone(&processes);
        let pids = move || -> BTreeMap<String, i32> {
            let processes = pids.lock().unwrap_or_else(PoisonError::into_inner);
            let pid = |(name, child): (&String, &Child)| {
                Some((name.clone(), i32::try_from(child.id()).ok()?))
            };
            processes.iter().filter_map(pid).collect()
        };
        let links =
            links.then(|| Links::start(destinations.collect(), Arc::new(pids), Arc::default()));
        let cluster = Self { members, processes, links, folder };
        for member in &cluster.members {
            cluster.spawn(member)?;
        }
        wait_for("etcd's first leader", LIMIT, async || {
            for member in &cluster.members {
                let status = Etcd::status(&format!("http://{}", member.client)).await?;
                ensure!(status.leader != 0, "{} knows no leader", member.name);
            }
            Ok(())
        })
        .await?;
        Ok(cluster)
    }

    fn spawn(&self, member: &Member) -> Result<()> {
        let all = self.members.iter().map(|m| format!("{}=http://{}", m.name, m.public_peer));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{}.log", member.name)))?;
        let child = Command::new("etcd")
            .arg("--name")
            .arg(&member.name)
            .arg("--data-dir")
            .arg(self.folder.path().join(&member.name))
            .arg(format!("--listen-client-urls=http://{}", member.client))
            .arg(format!("--advertise-client-urls=http://{}", member.public_client))
            .arg(format!("--listen-peer-urls=http://{}", member.peer))
            .arg(format!("--initial-advertise-peer-urls=http://{}", member.public_peer))
            .arg(format!("--initial-cluster={}", all.collect::<Vec<_>>().join(",")))
            .arg("--initial-cluster-state=new")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting etcd: is Debian's etcd-server installed?")?;
        self.lock().insert(member.name.clone(), child);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Child>> {
        // Entries are whole: a panic elsewhere leaves no half of one.
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    pub(super) fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://{}", member.public_client)).collect()
    }

    pub(super) fn servers(&self) -> Vec<(String, String)> {
        let server = |member: &Member| (member.name.clone(), format!("http://{}", member.client));
        self.members.iter().map(server).collect()
    }

    pub(super) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let pid = self.lock().get(name).with_context(|| format!("no {name}"))?.id();
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    pub(super) async fn start_again(&self, name: &str) -> Result<()> {
        wait_for("end of etcd", LIMIT, async || {
            let ended = self.lock().get_mut(name).map(Child::try_wait).transpose()?.flatten();
            ensure!(ended.is_some(), "it still runs");
            Ok(())
        })
        .await?;
        let member = self.members.iter().find(|member| member.name == name);
        self.spawn(member.with_context(|| format!("no {name}"))?)
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for child in self.lock().values_mut() {
            // One that has ended already needs neither.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn member(number: usize, links: bool) -> Result<Member> {
    let (client, peer) = (free()?, free()?);
    let public = |real| if links { free() } else { Ok(real) };
    Ok(Member {
        name: format!("e{number}"),
        client,
        peer,
        public_client: public(client)?,
        public_peer: public(peer)?,
    })
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
