//! Which process owns a TCP connection, from `/proc`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The inode of the socket at `local` that is connected to `remote`.
#[must_use]
pub fn inode(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    find(&std::fs::read_to_string("/proc/net/tcp").ok()?, local, remote)
}

fn find(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = address(fields.get(1)?)? == local && address(fields.get(2)?)? == remote;
        if matches { fields.get(9)?.parse().ok() } else { None }
    })
}

/// `0100007F:1F90`: the address in the machine's byte order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), u16::from_str_radix(port, 16).ok()?))
}

/// Does the process have a descriptor of this socket?
#[must_use]
pub fn owns(pid: i32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_str() == Some(&wanted)))
}

#[cfg(test)]
#[path = "sockets_test.rs"]
mod tests;
