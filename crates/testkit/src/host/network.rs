//! Links, addresses and rules of hosts.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use super::{Host, tool};

/// Beginning of every name; what follows is the cluster's range of ports.
pub(super) const PREFIX: &str = "qrh";
/// The host with number 1 has this address in its network, the next one more.
const FIRST_HOST: u8 = 10;
/// Are packets between ports of a bridge filtered like routed ones?
const FILTERED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The bridge between the hosts of a cluster.
pub(super) fn bridge(base: u16) -> String {
    format!("{PREFIX}{base}")
}

/// The range of ports in the name of a bridge or of a host.
pub(super) fn base_of(name: &str) -> Option<u16> {
    let number = name.strip_prefix(PREFIX)?;
    number.split(['-', '.']).next()?.parse().ok()
}

/// Below the addresses that clusters give to pods and services.
pub(super) fn gateway(base: u16) -> Ipv4Addr {
    let number = u8::try_from(base / 200 % 100).unwrap_or(0);
    Ipv4Addr::new(10, 20 + number, 0, 1)
}

pub(super) fn address(gateway: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = gateway.octets();
    Ipv4Addr::new(a, b, c, FIRST_HOST + number)
}

pub(super) async fn make_bridge(bridge: &str, gateway: Ipv4Addr) -> Result<()> {
    tool(&["ip", "link", "add", bridge, "type", "bridge"]).await?;
    tool(&["ip", "address", "add", &format!("{gateway}/24"), "dev", bridge]).await?;
    tool(&["ip", "link", "set", bridge, "up"]).await?;
    if is_filtered() {
        // Docker drops what is forwarded and not its own.
        tool(&[&["iptables", "-w", "5", "-I"], &accept(bridge)[..]].concat()).await?;
    }
    Ok(())
}

/// Lets hosts speak to each other where the kernel filters their packets.
pub(super) fn accept(bridge: &str) -> [&str; 7] {
    ["FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"]
}

pub(super) fn is_filtered() -> bool {
    std::fs::read_to_string(Path::new(FILTERED)).is_ok_and(|text| text.trim() == "1")
}

/// Makes the namespace of a host and its link, and leads its packets to masters there.
pub(super) async fn make(
    host: &Host,
    bridge: &str,
    gateway: Ipv4Addr,
    ports: &[u16],
) -> Result<()> {
    let (name, link) = (host.name.as_str(), host.link.as_str());
    let (address, gateway) = (format!("{}/24", host.address), gateway.to_string());
    tool(&["ip", "netns", "add", name]).await?;
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", name];
    tool(&[&["ip", "link", "add", link], &peer[..]].concat()).await?;
    tool(&["ip", "link", "set", link, "master", bridge, "up"]).await?;
    inside(host, &["ip", "link", "set", "lo", "up"]).await?;
    inside(host, &["ip", "address", "add", &address, "dev", "eth0"]).await?;
    inside(host, &["ip", "link", "set", "eth0", "up"]).await?;
    inside(host, &["ip", "route", "add", "default", "via", &gateway]).await?;
    // The first lets packets with a loopback address leave it, to be given another.
    for setting in ["net.ipv4.conf.all.route_localnet=1", "net.ipv4.ip_forward=1"] {
        inside(host, &["sysctl", "-q", "-w", setting]).await?;
    }
    let iptables =
        async |rule: &[&str]| inside(host, &[&["iptables", "-w", "5"], rule].concat()).await;
    for port in ports.iter().map(u16::to_string) {
        let masters = ["-d", "127.0.0.1", "-p", "tcp", "--dport", &port];
        let there = ["-j", "DNAT", "--to-destination", &gateway];
        iptables(&[&["-t", "nat", "-A", "OUTPUT"], &masters[..], &there].concat()).await?;
    }
    let own = ["-s", "127.0.0.0/8", "-o", "eth0", "-j", "MASQUERADE"];
    iptables(&[&["-t", "nat", "-A", "POSTROUTING"], &own[..]].concat()).await?;
    // Docker keeps this chain as it finds it: pods of other hosts may be answered.
    iptables(&["-N", "DOCKER-USER"]).await?;
    iptables(&["-A", "DOCKER-USER", "-i", "eth0", "-j", "ACCEPT"]).await
}

/// Runs a tool on a host.
pub(super) async fn inside(host: &Host, args: &[&str]) -> Result<()> {
    let enter = format!("--net={}", super::remains::namespace(&host.name).display());
    tool(&[&["nsenter", &enter], args].concat()).await
}

pub(super) async fn set_link(link: &str, state: &str) -> Result<()> {
    tool(&["ip", "link", "set", link, state]).await
}
