//! [`Hosts`]: machines of a cluster on this one. Each is a network namespace with an address of
//! its own on a bridge, its own Docker daemon, and a link that can be cut.
//!
//! Masters stay on this machine's loopback. A host reaches them at the addresses that they name
//! themselves: packets to them are sent over its link to the bridge, where the proxy in front of
//! the masters listens too and knows the host by its address (see [`crate::links`]).
//!
//! Everything of a host is named after the range of ports of its cluster, which is locked while
//! the cluster lives: what carries the name of a range that nobody holds was left by a process
//! that was killed, and is removed by the next.

mod docker;
mod network;
mod remains;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::process;
use docker::Engine;

/// What it takes, and which package of Debian has it.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
    ("containerd", "containerd"),
    ("dockerd", "docker.io"),
    ("docker", "docker-cli"),
];

/// The hosts of one cluster. Dropping it removes them with all that runs there.
#[derive(Debug)]
pub struct Hosts {
    bridge: String,
    gateway: Ipv4Addr,
    by_node: BTreeMap<String, Host>,
}

impl Hosts {
    /// Makes a host for each node and starts its daemon. `base` is the cluster's range of ports,
    /// `ports` are those of masters that hosts must reach.
    ///
    /// # Errors
    /// When a program is missing, or this process may not do it.
    pub async fn start(base: u16, nodes: &[String], ports: &[u16]) -> Result<Self> {
        check_programs()?;
        let bridge = network::bridge(base);
        let stale = tokio::task::spawn_blocking(move || remains::remove_stale(base)).await??;
        for name in stale {
            eprintln!("removed the host {name}, which an earlier run left behind");
        }
        let gateway = network::gateway(base);
        // From here on, dropping it cleans up.
        let mut hosts = Self { bridge: bridge.clone(), gateway, by_node: BTreeMap::new() };
        network::make_bridge(&bridge, gateway).await?;
        for (number, node) in (1..).zip(nodes) {
            let name = format!("{bridge}-{node}");
            let host = Host {
                link: format!("{bridge}.{number}"),
                address: network::address(gateway, number),
                // By turns, so that both ways of Docker to come back are met.
                engine: Engine::new(&name, number % 2 == 0)?,
                name,
            };
            network::make(&host, &bridge, gateway, ports).await?;
            hosts.by_node.insert(node.clone(), host);
        }
        for host in hosts.by_node.values() {
            host.start_docker().await?;
        }
        Ok(hosts)
    }

    /// The host of a node.
    #[must_use]
    pub fn get(&self, node: &str) -> Option<&Host> {
        self.by_node.get(node)
    }

    /// All hosts by node.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.by_node.iter().map(|(node, host)| (node.as_str(), host))
    }

    /// This machine, as hosts see it.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Tells every host where the pods of the others are, as a router between real machines
    /// would know. `ranges`: addresses of pods by node.
    ///
    /// # Errors
    /// When a route cannot be set.
    pub async fn route(&self, ranges: &BTreeMap<String, String>) -> Result<()> {
        for (node, host) in self.all() {
            for (other, range) in ranges.iter().filter(|(other, _)| *other != node) {
                let via = self.get(other).with_context(|| format!("{other} has no host"))?;
                let via = via.address.to_string();
                network::inside(host, &["ip", "route", "replace", range, "via", &via]).await?;
            }
        }
        Ok(())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = remains::remove(&self.bridge) {
            eprintln!("removing the hosts of {}: {error:#}", self.bridge);
        }
    }
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Of its network namespace, of its folder, and of the control group of its containers.
    name: String,
    /// This machine's end of its link.
    link: String,
    address: Ipv4Addr,
    engine: Engine,
}

impl Host {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its daemon.
    #[must_use]
    pub fn daemon(&self) -> crate::docker::Daemon {
        self.engine.client()
    }

    /// Where its daemon listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.engine.socket()
    }

    /// Do its containers outlive its daemon (Docker's option `live-restore`)?
    #[must_use]
    pub fn keeps_containers(&self) -> bool {
        self.engine.live_restore
    }

    /// A command that runs on this host. Its process id is that of the program itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        // Not `ip netns exec`, which hides the mounts of control groups.
        command.arg(format!("--net={}", remains::namespace(&self.name).display())).arg(program);
        command
    }

    /// Starts the daemon if it does not run, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start_docker(&self) -> Result<()> {
        self.engine.start(self).await
    }

    /// SIGKILL of the daemon and of containerd; containers run on meanwhile.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_docker(&self) -> Result<()> {
        self.engine.kill().await
    }

    /// SIGSTOP of the daemon and of containerd: connections are taken, and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause_docker(&self) -> Result<()> {
        self.engine.pause()
    }

    /// SIGCONT. Does nothing when it runs, or not at all.
    pub fn continue_docker(&self) {
        self.engine.go_on();
    }

    /// Everything on it ends at once, as when the power fails: all processes and containers, and
    /// what would be in memory only.
    ///
    /// # Errors
    /// When a process does not end.
    pub async fn cut_power(&self) -> Result<()> {
        let name = self.name.clone();
        tokio::task::spawn_blocking(move || remains::end_all(&name)).await??;
        self.engine.forget_memory()
    }

    /// Cuts its link, as pulling the cable would.
    ///
    /// # Errors
    /// When that is not possible.
    pub async fn unplug(&self) -> Result<()> {
        network::set_link(&self.link, "down").await
    }

    /// Mends its link.
    ///
    /// # Errors
    /// When that is not possible.
    pub async fn plug(&self) -> Result<()> {
        network::set_link(&self.link, "up").await
    }
}

fn check_programs() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "hosts of their own need root: they are made of network namespaces and Docker daemons"
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing = PROGRAMS.iter().find(|(program, _)| !is_there(program));
    if let Some((program, package)) = missing {
        anyhow::bail!(
            "hosts of their own need {program}, which is not in PATH (package {package})"
        );
    }
    Ok(())
}

/// Runs a tool of the system that must succeed.
async fn tool(args: &[&str]) -> Result<()> {
    let (program, args) = args.split_first().context("no program")?;
    process::run(program, args, &[], None).await?.ok().map(drop)
}

#[cfg(test)]
#[path = "host_test.rs"]
mod tests;
