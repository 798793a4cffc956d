//! The processes of a [`TestCluster`], one by one: stopped, killed, and started again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_client::ClusterFile;

use crate::cluster::{PATIENCE, TestCluster};
use crate::host::Hosts;
use crate::links::{Destination, Links};
use crate::membership::place;
use crate::process;
use crate::wait::wait_for;

/// Environment of a process whose clock can be turned: a file beside its data directory.
pub(crate) const CLOCK_FILE: (&str, &str) = ("QUORATE_CLOCK_FILE", "clock");

impl TestCluster {
    /// Process ids by name of master or node.
    ///
    /// # Errors
    /// When `cluster.json` cannot be read.
    pub fn pids(&self) -> Result<BTreeMap<String, i32>> {
        Ok(pids(self.file()?))
    }

    /// Sends a signal to a master or an agent.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let pid = *self.pids()?.get(name).with_context(|| format!("no {name} in this cluster"))?;
        ensure!(self.is_alive(pid), "{name} (process {pid}) is not running");
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {name} ({pid})"))
    }

    /// Does a process run?
    ///
    /// # Errors
    /// When `cluster.json` cannot be read.
    pub fn runs(&self, name: &str) -> Result<bool> {
        Ok(self.pids()?.get(name).is_some_and(|pid| self.is_alive(*pid)))
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let pid = *self.pids()?.get(name).with_context(|| format!("no {name} in this cluster"))?;
        self.signal(name, Signal::SIGKILL)?;
        self.wait_pid_ended(name, pid).await
    }

    /// Waits until a process has ended.
    ///
    /// # Errors
    /// When there is no such process, or it does not end.
    pub async fn wait_ended(&self, name: &str) -> Result<()> {
        let pid = *self.pids()?.get(name).with_context(|| format!("no {name} in this cluster"))?;
        self.wait_pid_ended(name, pid).await
    }

    async fn wait_pid_ended(&self, name: &str, pid: i32) -> Result<()> {
        wait_for(&format!("end of {name}"), PATIENCE, async || {
            ensure!(self.is_gone(pid), "process {pid} is still there");
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Can the clock of a process be turned? Only that of a debug build can.
    #[must_use]
    pub fn has_clock(&self, name: &str) -> bool {
        self.clock(name).exists()
    }

    /// Turns the wall clock of a process, and of those that are started in its place later:
    /// forward, or backward when the number is negative; with 0 it is right again.
    ///
    /// # Errors
    /// When the process does not obey, which only a debug build does.
    pub fn turn_clock(&self, name: &str, by_seconds: i64) -> Result<()> {
        let path = self.clock(name);
        ensure!(path.exists(), "{name} does not obey {}: is it no debug build?", CLOCK_FILE.0);
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, format!("{by_seconds}\n"))?;
        Ok(std::fs::rename(&temporary, &path)?)
    }

    fn clock(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(CLOCK_FILE.1)
    }

    /// The proxy in front of the masters, when [`Options::links`] asked for it.
    #[must_use]
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    /// The cluster as it is behind the proxy: what the processes themselves listen on.
    ///
    /// # Errors
    /// When `cluster.json` cannot be read.
    pub fn file_behind_links(&self) -> Result<ClusterFile> {
        let mut file = self.file()?;
        if self.links.is_some() {
            for master in &mut file.masters {
                let port = address(&master.url)?.port() - BEHIND;
                let scheme = master.url.split("://").next().unwrap_or("http");
                master.url = format!("{scheme}://127.0.0.1:{port}");
            }
        }
        Ok(file)
    }

    /// The command line with which [`TestCluster::start_again`] starts a process.
    pub(crate) fn remember_command<'a>(&self, name: &str, args: impl IntoIterator<Item = &'a str>) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.insert(name.to_owned(), args.into_iter().map(str::to_owned).collect());
    }

    pub(crate) fn remember_commands(&self) -> Result<()> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, pid) in self.pids()? {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
            let args = line.split_terminator('\0').skip(1).map(str::to_owned);
            commands.insert(name, args.collect());
        }
        Ok(())
    }

    /// Starts one process again with the command line it had; [`TestCluster::heal`] starts all
    /// that do not run, and waits. Does nothing when it runs.
    ///
    /// # Errors
    /// When it was never started, or cannot be.
    pub fn start_again(&self, name: &str) -> Result<()> {
        if self.runs(name)? {
            return Ok(());
        }
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let args = commands.get(name).with_context(|| format!("no {name} in this cluster"))?;
        let home = self.dir.join(name);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(home.join("log"))?;
        let mut command = match self.own_host(name) {
            Some(host) => host.command(&self.binary),
            None => tokio::process::Command::new(&self.binary),
        };
        let mut child = command
            .args(args)
            .envs(self.environment.iter().cloned())
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        // Task "reaper": without it a killed process would stay as a zombie.
        tokio::spawn(async move { child.wait().await });
        std::fs::write(home.join("pid"), format!("{pid}\n"))?;
        self.record_pid(name, pid)
    }

    /// Writes a process id into `cluster.json`.
    fn record_pid(&self, name: &str, pid: u32) -> Result<()> {
        self.change_file(|file| {
            for list in ["masters", "nodes"] {
                let entries = file.get_mut(list).and_then(serde_json::Value::as_array_mut);
                for entry in entries.into_iter().flatten() {
                    if entry["name"] == name {
                        entry["pid"] = pid.into();
                    }
                }
            }
            Ok(())
        })
    }

    /// Changes `cluster.json`, and keeps everything else of the file.
    pub(crate) fn change_file(
        &self,
        change: impl FnOnce(&mut serde_json::Value) -> Result<()>,
    ) -> Result<()> {
        let path = self.dir.join("cluster.json");
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        change(&mut file)?;
        let temporary = self.dir.join(".cluster.json.testkit");
        std::fs::write(&temporary, serde_json::to_vec_pretty(&file)?)?;
        Ok(std::fs::rename(&temporary, &path)?)
    }

    /// A process whose command line names this cluster's folder.
    pub(crate) fn is_alive(&self, pid: i32) -> bool {
        process::command_line(pid).contains(&*self.dir.to_string_lossy())
    }

    fn is_gone(&self, pid: i32) -> bool {
        let line = process::command_line(pid);
        // Somebody else's has its id by now, or it may be ending.
        let is_other = !line.is_empty() && !line.contains(&*self.dir.to_string_lossy());
        is_other || process::has_ended(pid)
    }
}

/// With a proxy, masters are reached at ports this much above those that they listen on.
pub(crate) const BEHIND: u16 = 50;

/// Proxies in front of the ports that `quorate up --port-base` will use; for hosts, also at the
/// address that they have for this machine.
pub(crate) fn links_of(dir: &Path, port_base: u16, masters: u16, hosts: Option<&Hosts>) -> Links {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ports = (1..=masters).flat_map(|i| [(i, port_base + i), (i, port_base + 100 + i)]);
    let mut destinations = Vec::new();
    for (number, port) in ports {
        let faces = [Some(Ipv4Addr::LOCALHOST), hosts.map(Hosts::gateway)];
        destinations.extend(faces.into_iter().flatten().map(|face| Destination {
            name: format!("m{number}"),
            advertised: SocketAddr::from((face, port + BEHIND)),
            real: local(port),
        }));
    }
    let dir = dir.to_owned();
    let by_place = |file| pids(file).into_iter().map(|(name, pid)| (place(&name).to_owned(), pid));
    let processes = move || ClusterFile::load(&dir).map(by_place).into_iter().flatten().collect();
    let hosts = hosts.into_iter().flat_map(Hosts::all);
    let addresses = hosts.map(|(node, host)| (IpAddr::V4(host.address()), node.to_owned()));
    Links::start(destinations, Arc::new(processes), Arc::new(addresses.collect()))
}

fn pids(file: ClusterFile) -> BTreeMap<String, i32> {
    let masters = file.masters.into_iter().map(|m| (m.name, m.pid));
    let nodes = file.nodes.into_iter().map(|n| (n.name, n.pid));
    let endpoint = file.endpoint.into_iter().map(|e| ("endpoint".to_owned(), e.pid));
    let all = masters.chain(nodes).chain(endpoint);
    all.filter_map(|(name, pid)| Some((name, i32::try_from(pid.filter(|pid| *pid != 0)?).ok()?)))
        .collect()
}

/// The address in a URL of ours.
fn address(url: &str) -> Result<SocketAddr> {
    let text = url.split_once("://").map_or(url, |(_, address)| address);
    text.parse().with_context(|| format!("{url} is not http(s)://IP:PORT"))
}
