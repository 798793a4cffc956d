//! Makes addresses of services belong to this host, so that packets to them reach the
//! agents' sockets: one local route each.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::net::IpAddr;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

use crate::network::run;

/// The routes of one agent, and its share in a lock of all agents of the cluster on this
/// host: whoever goes last removes the routes.
pub struct Routes {
    present: BTreeSet<IpAddr>,
    problem: Option<String>,
    share: Option<Flock<File>>,
}

impl Routes {
    /// None yet.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let name: String =
            cluster.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(36).collect();
        let folder = if Path::new("/run").is_dir() { Path::new("/run") } else { Path::new("/tmp") };
        let path = folder.join(format!("quorate-{name}.lock"));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok();
        let share = file.and_then(|f| Flock::lock(f, FlockArg::LockSharedNonblock).ok());
        Self { present: BTreeSet::new(), problem: None, share }
    }

    /// Adds and removes routes so that exactly these addresses are local. Answers what is
    /// wrong, if anything.
    pub async fn set(&mut self, wanted: &BTreeSet<IpAddr>) -> Option<String> {
        for gone in self.present.difference(wanted).copied().collect::<Vec<_>>() {
            // Another agent of the host may have removed it already.
            let _ = run("ip", &["route", "del", "local", &host(gone), "dev", "lo"]).await;
            self.present.remove(&gone);
        }
        let mut problem = None;
        for new in wanted.difference(&self.present).copied().collect::<Vec<_>>() {
            match run("ip", &["route", "replace", "local", &host(new), "dev", "lo"]).await {
                Ok(()) => {
                    self.present.insert(new);
                }
                Err(error) => {
                    problem = Some(format!(
                        "services cannot be reached at their cluster addresses (node ports work): \
                         adding a local route failed: {error}; run the agent as root"
                    ));
                    break;
                }
            }
        }
        if problem != self.problem
            && let Some(problem) = &problem
        {
            warn!("{problem}");
        }
        self.problem.clone_from(&problem);
        problem
    }

    /// Forgets what is there, so that the next `set` writes it all again.
    pub fn recheck(&mut self) {
        self.present.clear();
    }

    /// Removes the routes, unless another agent of this host still serves them.
    pub async fn clear(mut self) {
        let last = match self.share.take() {
            Some(share) => share.relock(FlockArg::LockExclusiveNonblock).is_ok(),
            None => false,
        };
        if last {
            self.set(&BTreeSet::new()).await;
        }
    }
}

fn host(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}
