//! What there is of hosts on this machine, and how all of it is removed: processes, containers,
//! mounts, folders, control groups, namespaces and links. By name alone, so that what a killed
//! process left behind is found as well.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::network;
use crate::{ports, process};

const NAMESPACES: &str = "/var/run/netns";
const GROUPS: &str = "/sys/fs/cgroup";
/// Longest time that killed processes may take to be gone.
const ENDING: Duration = Duration::from_secs(20);
/// Pause between two looks at them.
const LOOK: Duration = Duration::from_millis(20);

/// A host's network namespace, as a file.
pub(super) fn namespace(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

/// A host's folder.
pub(super) fn folder(name: &str) -> PathBuf {
    folders().join(name)
}

fn folders() -> PathBuf {
    std::env::temp_dir().join("quorate-hosts")
}

/// Removes the hosts of clusters whose process is gone, and what is left of this very one's
/// range of ports. Returns their names.
pub(super) fn remove_stale(own: u16) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let links = entries(Path::new("/sys/class/net"));
    let all = links.into_iter().chain(all_hosts());
    let bases: BTreeSet<u16> = all.filter_map(|name| network::base_of(&name)).collect();
    for base in bases {
        if base == own || !ports::is_reserved(base)? {
            let bridge = network::bridge(base);
            removed.extend(hosts_of(&bridge));
            remove(&bridge)?;
        }
    }
    Ok(removed)
}

/// Removes a bridge with all its hosts.
pub(super) fn remove(bridge: &str) -> Result<()> {
    for name in hosts_of(bridge) {
        end_all(&name)?;
        let folder = folder(&name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("removing {}", folder.display()))?;
        }
        for hierarchy in entries(Path::new(GROUPS)).into_iter().chain([String::new()]) {
            remove_groups(&Path::new(GROUPS).join(hierarchy).join(&name));
        }
        if namespace(&name).exists() {
            run(&["ip", "netns", "delete", &name])?;
        }
    }
    if Path::new("/sys/class/net").join(bridge).exists() {
        run(&["ip", "link", "delete", bridge])?;
    }
    let delete = [&["iptables", "-w", "5", "-D"], &network::accept(bridge)[..]].concat();
    while network::is_filtered() && run(&delete).is_ok() {}
    Ok(())
}

fn hosts_of(bridge: &str) -> Vec<String> {
    let prefix = format!("{bridge}-");
    all_hosts().into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

fn all_hosts() -> BTreeSet<String> {
    let names = entries(Path::new(NAMESPACES)).into_iter().chain(entries(&folders()));
    names.filter(|name| network::base_of(name).is_some()).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Ends every process and container of a host, and unmounts what they had mounted.
pub(super) fn end_all(name: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let alive = processes(name);
        if alive.is_empty() {
            break;
        }
        ensure!(started.elapsed() < ENDING, "on the host {name} there still run {alive:?}");
        for pid in alive {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(LOOK);
    }
    let folder = folder(name);
    let table = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    for at in mounts_under(&table, &folder).into_iter().rev() {
        umount2(&at, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", at.display()))?;
    }
    Ok(())
}

/// In the order in which they were made.
pub(super) fn mounts_under(table: &str, folder: &Path) -> Vec<PathBuf> {
    let places = table.lines().filter_map(|line| line.split(' ').nth(1));
    places.map(PathBuf::from).filter(|at| at.starts_with(folder)).collect()
}

/// Processes of the host's network (daemons, agent), and those of its control group
/// (containers, which have networks of their own).
fn processes(name: &str) -> Vec<i32> {
    let network = fs::metadata(namespace(name)).ok().map(|file| file.ino());
    let is_of_host = |pid: &i32| {
        let own = fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|file| file.ino());
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        (own.is_some() && own == network) || is_in_group(&groups, name)
    };
    let all = entries(Path::new("/proc")).into_iter().filter_map(|pid| pid.parse().ok());
    all.filter(is_of_host).filter(|pid| !process::has_ended(*pid)).collect()
}

/// Lines like `8:pids:/qrh21000-n1/0123456789ab`.
pub(super) fn is_in_group(groups: &str, name: &str) -> bool {
    groups.lines().any(|line| line.split('/').nth(1) == Some(name))
}

/// From the leaves to the root: the kernel removes empty groups only.
fn remove_groups(group: &Path) {
    for child in entries(group) {
        let child = group.join(child);
        if child.is_dir() {
            remove_groups(&child);
        }
    }
    // A group that is not there, or busy a moment longer, harms nobody.
    let _ = fs::remove_dir(group);
}

fn run(args: &[&str]) -> Result<()> {
    let output = Command::new(args[0]).args(&args[1..]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running {}", args.join(" ")))?;
    if !output.status.success() {
        bail!("{}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
