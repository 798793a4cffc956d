//! What the node's network needs beside Docker: packets between the bridges of two nodes
//! on one host, and addresses of services that belong to the host itself.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tracing::{debug, warn};

const LIMIT: Duration = Duration::from_secs(10);

/// Docker isolates its bridges from each other; nodes on one host must reach each other's
/// pods. The rule is the same for every agent of the host and stays when they go.
const RULE: [&str; 7] = ["DOCKER-USER", "-i", "qr+", "-o", "qr+", "-j", "ACCEPT"];

/// Runs a tool of the system.
///
/// # Errors
/// What it said, when it failed, is missing or did not end in time.
pub async fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(LIMIT, child).await {
        Err(_) => Err(format!("{program} did not end in time")),
        Ok(Err(e)) => Err(format!("cannot run {program}: {e}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Lets packets pass between the bridges of nodes. Idempotent; warns once when it cannot.
pub async fn allow_between_bridges() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let with = |verb: &'static str| {
        let mut arguments = vec!["-w", "5", verb];
        arguments.extend(RULE);
        arguments
    };
    if run("iptables", &with("-C")).await.is_ok() {
        return;
    }
    match run("iptables", &with("-I")).await {
        Ok(()) => debug!("pods of nodes on this host may reach each other"),
        Err(error) if !WARNED.swap(true, Ordering::Relaxed) => warn!(
            error,
            "pods on this host cannot reach pods of another node on the same host; as root: \
             iptables -I {}",
            RULE.join(" ")
        ),
        Err(_) => {}
    }
}

/// Connects to a port on the loopback address of the network that a process has: what listens
/// only there is reached, too.
///
/// # Errors
/// When the network cannot be entered, or nobody listens.
pub async fn connect_inside(pid: i64, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let inside = move || {
        let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
        // Of this thread only, which ends with the connection made.
        nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let address = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        std::net::TcpStream::connect_timeout(&address, LIMIT)
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // Thread "pod-connect": a thread of its own, as it never comes back to the node's network.
    std::thread::Builder::new().name("pod-connect".into()).spawn(move || {
        let _ = sender.send(inside());
    })?;
    let stream = receiver.await.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    tokio::net::TcpStream::from_std(stream)
}
