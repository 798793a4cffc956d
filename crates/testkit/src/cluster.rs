//! [`TestCluster`]: a local cluster of real processes that can be broken on purpose.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_client::v1::StatusResponse;
use quorate_client::{Client, ClientOptions, ClusterFile, ListOptions};
use quorate_objects::node;

use crate::breaking::{BEHIND, CLOCK_FILE, links_of};
use crate::host::Hosts;
use crate::links::Links;
use crate::nodes::{self, CLUSTER_LABEL};
use crate::ports::PortBase;
use crate::process::{self, Output};
use crate::wait::wait_for;

/// For waits on a healthy cluster: far beyond what it takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of each log in a description of the cluster.
const LOG_TAIL: usize = 25;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of masters.
    pub masters: u16,
    /// Number of nodes.
    pub nodes: u16,
    /// Give each node a host of its own, with a Docker daemon, instead of this machine's: see
    /// [`crate::host`]. Needs root, `links` and `insecure`.
    pub own_docker: bool,
    /// Number of hollow nodes, all of one process.
    pub hollow: u32,
    /// Plain HTTP instead of mutual TLS.
    pub insecure: bool,
    /// Pods that may be moving at the same time to even out nodes; 0: none is ever moved.
    pub rebalance_max_moves: u16,
    /// Put a proxy in front of every master: see [`TestCluster::links`].
    pub links: bool,
    /// Keep ports for one more master: see [`TestCluster::new_place`].
    pub spare_place: bool,
    /// Processes of a debug build have clocks that can be turned: see
    /// [`TestCluster::turn_clock`].
    pub clocks: bool,
    /// The binary that starts the cluster, when not the one under test: every process that is
    /// started again afterwards is of the latter. An upgrade, that is.
    pub first_binary: Option<PathBuf>,
    /// Environment of the processes, beyond what this one has.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            masters: 3,
            nodes: 2,
            own_docker: false,
            hollow: 0,
            insecure: false,
            rebalance_max_moves: 0,
            links: false,
            spare_place: false,
            clocks: false,
            first_binary: None,
            environment: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it stops it and removes its containers.
#[derive(Debug)]
pub struct TestCluster {
    pub(crate) binary: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) cluster_id: String,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) links: Option<Links>,
    /// Before the folder: what runs there ends first.
    pub(crate) hosts: Option<Hosts>,
    /// Number of masters at the start.
    pub(crate) first_masters: u16,
    pub(crate) spare_place: bool,
    /// Somebody else's is neither stopped nor removed.
    owned: bool,
    /// Command lines of the processes as they were started.
    pub(crate) commands: Mutex<BTreeMap<String, Vec<String>>>,
    _ports: Option<PortBase>,
    _temp: Option<tempfile::TempDir>,
}

impl TestCluster {
    /// Starts a cluster in a temporary folder, on ports of its own, and waits until a master
    /// leads and all nodes are ready.
    ///
    /// # Errors
    /// When it does not come up; the error carries what `quorate up` and the logs say.
    pub async fn start(options: Options) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("quorate-test-").tempdir()?;
        let ports = PortBase::reserve(options.masters + u16::from(options.spare_place))?;
        let dir = temp.path().join("cluster");
        let mut cluster = Self::start_in(&dir, ports.number(), options).await?;
        cluster._ports = Some(ports);
        cluster._temp = Some(temp);
        Ok(cluster)
    }

    /// Starts a cluster in `dir` on `port_base`, and waits until it is ready.
    ///
    /// # Errors
    /// As [`TestCluster::start`].
    pub async fn start_in(dir: &Path, port_base: u16, options: Options) -> Result<Self> {
        let binary = process::binary()?;
        let places = options.masters + u16::from(options.spare_place);
        let mut environment = options.environment.clone();
        if options.clocks {
            environment.push((CLOCK_FILE.0.to_owned(), CLOCK_FILE.1.to_owned()));
        }
        let hosts = nodes::start_hosts(port_base, places, &options).await?;
        let mut cluster = Self {
            binary,
            dir: dir.to_owned(),
            cluster_id: String::new(),
            links: options.links.then(|| links_of(dir, port_base, places, hosts.as_ref())),
            hosts,
            first_masters: options.masters,
            spare_place: options.spare_place,
            owned: true,
            environment,
            commands: Mutex::default(),
            _ports: None,
            _temp: None,
        };
        // `up` starts agents on this machine only.
        let nodes = if options.own_docker { 0 } else { options.nodes };
        let numbers =
            [options.masters, nodes, port_base, port_base + BEHIND].map(|n| n.to_string());
        let [masters, nodes, base, public] = numbers.each_ref().map(String::as_str);
        let hollow = options.hollow.to_string();
        let mut args = vec!["--masters", masters, "--nodes", nodes, "--port-base", base];
        if options.hollow > 0 {
            args.extend(["--hollow", &hollow, "--wait", "300s"]);
        }
        if options.insecure {
            args.push("--insecure");
        }
        let moves = options.rebalance_max_moves.to_string();
        if options.rebalance_max_moves > 0 {
            args.extend(["--rebalance-max-moves", &moves]);
        }
        if options.links {
            args.extend(["--advertise-base", public]);
        }
        // From here on, dropping `cluster` cleans up.
        let first = options.first_binary.as_deref().unwrap_or(&cluster.binary).to_owned();
        let up = cluster.up(&first, &args).await;
        cluster.cluster_id = cluster.file().map(|file| file.cluster_id).unwrap_or_default();
        up?;
        cluster.remember_commands()?;
        cluster.start_on_hosts().await?;
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// A local cluster that runs already, started by `quorate up --dir`. Dropping this value
    /// leaves it running.
    ///
    /// # Errors
    /// When the folder has no cluster, or one of its processes does not run.
    pub fn attach(dir: &Path) -> Result<Self> {
        let dir = std::fs::canonicalize(dir)
            .with_context(|| format!("the folder of the cluster, {}", dir.display()))?;
        let cluster = Self {
            binary: process::binary()?,
            cluster_id: ClusterFile::load(&dir)?.cluster_id,
            dir,
            links: None,
            hosts: None,
            first_masters: 0,
            spare_place: false,
            owned: false,
            environment: Vec::new(),
            commands: Mutex::default(),
            _ports: None,
            _temp: None,
        };
        let idle: Vec<String> = cluster
            .pids()?
            .into_iter()
            .filter(|(_, pid)| !cluster.is_alive(*pid))
            .map(|(name, _)| name)
            .collect();
        let folder = cluster.dir.display();
        ensure!(
            idle.is_empty(),
            "of the cluster in {folder} there do not run: {}; `quorate up --dir {folder}` starts \
             them",
            idle.join(", ")
        );
        cluster.remember_commands()?;
        Ok(cluster)
    }

    /// Was it started for the purpose, and is it removed in the end?
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    async fn up(&self, binary: &Path, more: &[&str]) -> Result<()> {
        let dir = self.dir.display().to_string();
        let args = [&["up", "--dir", &dir], more].concat();
        let up = self.run(binary, &args, None).await?;
        if up.code == Some(0) {
            return Ok(());
        }
        bail!("{up}\n{}", self.logs());
    }

    /// Starts what is not running, and waits until all is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn heal(&self) -> Result<()> {
        for (_, pid) in self.pids()? {
            // A paused process would take the signal only later; one that is gone needs none.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        self.heal_hosts().await?;
        // `quorate up` refuses a cluster that runs already.
        let alive = self.pids()?.into_values().filter(|pid| self.is_alive(*pid)).count();
        let file = self.file()?;
        if alive < file.masters.len() + file.nodes.len() + usize::from(file.endpoint.is_some()) {
            self.up(&self.binary, &[]).await?;
        }
        self.wait_ready().await
    }

    /// Waits until a master leads with all masters caught up, and all nodes are ready.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn wait_ready(&self) -> Result<()> {
        self.wait("every master follows a leader and every node is ready", async || {
            let file = self.file()?;
            for master in &file.masters {
                let status = self.status_of(&master.name).await?;
                ensure!(!status.leader.is_empty(), "{} knows no leader", master.name);
            }
            let nodes: Vec<Node> = self.client()?.list_as(&ListOptions::default()).await?;
            let ready = nodes.iter().filter(|node| node::is_ready(node)).count();
            ensure!(ready >= file.nodes.len(), "{ready} of {} nodes are ready", file.nodes.len());
            Ok(())
        })
        .await
    }

    /// The cluster's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// `cluster.json` as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&self) -> Result<ClusterFile> {
        Ok(ClusterFile::load(&self.dir)?)
    }

    /// Runs `quorate` with these arguments against this cluster.
    ///
    /// # Errors
    /// When it cannot be run, or does not end; not when it fails.
    pub async fn quorate(&self, args: &[&str]) -> Result<Output> {
        self.quorate_with(args, None).await
    }

    /// The same with text on its standard input.
    ///
    /// # Errors
    /// As [`TestCluster::quorate`].
    pub async fn quorate_with(&self, args: &[&str], input: Option<&str>) -> Result<Output> {
        self.run(&self.binary, args, input).await
    }

    async fn run(&self, binary: &Path, args: &[&str], input: Option<&str>) -> Result<Output> {
        let state = self.dir.with_extension("state");
        let mut env: Vec<(&str, &OsStr)> = vec![("QUORATE_CLUSTER", self.dir.as_os_str())];
        if self.owned {
            // It keeps `up` from becoming the user's default cluster.
            env.push(("XDG_STATE_HOME", state.as_os_str()));
        }
        env.extend(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_ref())));
        process::run(binary, args, &env, input).await
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When `quorate apply` fails.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.quorate_with(&["apply", "-f", "-"], Some(manifests)).await?.ok()
    }

    /// A client of all masters.
    ///
    /// # Errors
    /// When `cluster.json` or a certificate cannot be read.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::from_cluster_file(&self.file()?, ClientOptions::default())?)
    }

    /// A client of one master only.
    ///
    /// # Errors
    /// As [`TestCluster::client`], or when there is no such master.
    pub fn client_of(&self, master: &str, timeout: Duration) -> Result<Client> {
        let mut file = self.file()?;
        file.masters.retain(|m| m.name == master);
        let options = ClientOptions { timeout, ..ClientOptions::default() };
        Ok(Client::from_cluster_file(&file, options)?)
    }

    /// What one master says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status_of(&self, master: &str) -> Result<StatusResponse> {
        Ok(self.client_of(master, Duration::from_secs(2))?.status().await?)
    }

    /// What the first master that answers says.
    ///
    /// # Errors
    /// When none answers.
    pub async fn status(&self) -> Result<StatusResponse> {
        Ok(self.client()?.status().await?)
    }

    /// The name of the leader, from a master that leads itself with its work running. Waits for
    /// one: there may be an election.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn leader(&self) -> Result<String> {
        self.wait_leader("").await
    }

    /// The same at this moment.
    async fn leader_now(&self) -> Result<String> {
        for master in self.file()?.masters {
            if let Ok(status) = self.status_of(&master.name).await
                && status.leader == master.name
                && status.leader_work_running
            {
                return Ok(master.name);
            }
        }
        bail!("no master leads")
    }

    /// Waits until a master other than `not` leads.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn wait_leader(&self, not: &str) -> Result<String> {
        self.wait("a (new) leader", async || {
            let leader = self.leader_now().await?;
            ensure!(leader != not, "{not} still leads");
            Ok(leader)
        })
        .await
    }

    /// Waits for `look` to return `Ok`; on failure the error shows the cluster's state.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn wait<T>(&self, what: &str, look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        self.wait_within(what, PATIENCE, look).await
    }

    /// The same with a deadline of its own.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn wait_within<T>(
        &self,
        what: &str,
        deadline: Duration,
        look: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        match wait_for(what, deadline, look).await {
            Ok((value, _)) => Ok(value),
            Err(error) => Err(anyhow!("{error:#}\n{}", self.describe().await)),
        }
    }

    /// Pods that match a label selector, in namespace `default`.
    ///
    /// # Errors
    /// When no master can answer.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        let options = ListOptions {
            namespace: "default".to_owned(),
            labels: selector.to_owned(),
            ..ListOptions::default()
        };
        Ok(self.client()?.list_as(&options).await?)
    }

    /// Waits until exactly `count` pods match, all ready and none being deleted.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn wait_pods_ready(&self, selector: &str, count: usize) -> Result<Vec<Pod>> {
        self.wait(&format!("{count} ready pods with {selector}"), async || {
            let pods = self.pods(selector).await?;
            let ready = pods.iter().filter(|pod| is_serving(pod)).count();
            ensure!(ready == count && pods.len() == count, "{ready} ready of {}", pods.len());
            Ok(pods)
        })
        .await
    }

    /// Where node ports of each node are reached.
    ///
    /// # Errors
    /// When `cluster.json` cannot be read.
    pub fn node_addresses(&self, port: u16) -> Result<Vec<SocketAddr>> {
        let parse = |text: &str| Ok(SocketAddr::new(text.parse::<IpAddr>()?, port));
        self.file()?.nodes.iter().map(|node| parse(&node.address)).collect()
    }

    /// State and ends of logs, for error messages.
    pub async fn describe(&self) -> String {
        let mut text = String::from("--- the cluster at that moment");
        for args in [&["status"][..], &["get", "pods", "-A", "-o", "wide"], &["get", "nodes"]] {
            match self.quorate(args).await {
                Ok(output) => text.push_str(&format!("\n{output}")),
                Err(error) => text.push_str(&format!("\n{error:#}")),
            }
        }
        text + "\n" + &self.logs()
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        let mut folders: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        folders.sort();
        for folder in folders {
            let Ok(log) = std::fs::read_to_string(folder.join("log")) else { continue };
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            text.push_str(&format!("--- end of {}/log\n{}\n", folder.display(), tail.join("\n")));
        }
        text
    }
}

/// Is a pod ready and meant to stay?
#[must_use]
pub fn is_serving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && quorate_objects::pod::is_ready(pod)
}

/// Name of an object.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Name of the node that a pod is bound to; empty when to none.
#[must_use]
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let run = |program: &OsStr, args: &[&str]| {
            std::process::Command::new(program)
                .args(args)
                .env("XDG_STATE_HOME", self.dir.with_extension("state"))
                .stdin(std::process::Stdio::null())
                .output()
        };
        let dir = self.dir.to_string_lossy();
        for (_, pid) in self.pids().unwrap_or_default() {
            if self.is_alive(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
            }
        }
        if !self.owned {
            return;
        }
        match run(self.binary.as_os_str(), &["down", "--dir", &dir]) {
            Ok(down) if down.status.success() => {}
            Ok(down) => eprintln!("quorate down: {}", String::from_utf8_lossy(&down.stderr)),
            Err(error) => eprintln!("quorate down: {error}"),
        }
        // What a failed `down` left behind.
        for (name, pid) in self.pids().unwrap_or_default() {
            if self.is_alive(pid) {
                eprintln!("{name} (process {pid}) outlived `quorate down`: killing it");
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        // It only ever held the name of the last `up`; a missing folder is as good.
        let _ = std::fs::remove_dir_all(self.dir.with_extension("state"));
        if self.cluster_id.is_empty() {
            return;
        }
        let filter = format!("label={CLUSTER_LABEL}={}", self.cluster_id);
        for (list, remove) in [
            (&["ps", "-aq", "--filter", &filter][..], &["rm", "-f"][..]),
            (&["network", "ls", "-q", "--filter", &filter], &["network", "rm"]),
        ] {
            let Ok(output) = run(OsStr::new("docker"), list) else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let ids: Vec<&str> = text.lines().collect();
            if !ids.is_empty() {
                let _ = run(OsStr::new("docker"), &[remove, &ids].concat());
            }
        }
    }
}
