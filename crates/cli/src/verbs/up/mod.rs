//! `quorate up`

mod progress;
mod ready;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, ClientOptions, ClusterFile};
use quorate_objects::net::Ipv4Net;

use crate::context::{Context, Subnets};
use crate::duration;
use crate::error::{CliError, Result};
use crate::local::kubeconfig::{self, KUBECONFIG};
use crate::local::layout::{self, Wanted};
use crate::local::{self, LocalCluster, Member, Role, docker, pki, process};
use progress::Progress;
use ready::Started;

const LOG_LINES: usize = 12;

/// Starts a local cluster: masters and agents as background processes. In the folder of a
/// stopped one it starts what does not run, with its data.
#[derive(Args, Debug)]
pub struct Up {
    /// Number of masters [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=7))]
    masters: Option<u16>,
    /// Number of nodes [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=50))]
    nodes: Option<u16>,
    /// Number of hollow nodes: pods only pretend to run there, for tests of large clusters
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    hollow: Option<u32>,
    /// Folder of the cluster [default: ~/.local/state/quorate/local]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Masters listen on this + 1, 2, … and this + 101, 102, … [default: 7000]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..=65300))]
    port_base: Option<u16>,
    /// Tell everybody that masters are at this + 1, 2, … and this + 101, 102, …: for tests that
    /// put a proxy there
    #[arg(long, hide = true, value_parser = clap::value_parser!(u16).range(1024..=65300))]
    advertise_base: Option<u16>,
    /// Plain HTTP on loopback instead of TLS
    #[arg(long)]
    insecure: bool,
    /// Docker Engine: unix:///PATH or tcp://HOST:PORT [default: DOCKER_HOST or the usual socket]
    #[arg(long, value_name = "SOCKET")]
    docker: Option<String>,
    /// Addresses of pods, cut into one /24 per node [default: from the port base]
    #[arg(long)]
    pod_cidr: Option<String>,
    /// Addresses of services [default: from the port base]
    #[arg(long)]
    service_cidr: Option<String>,
    /// Pods that may be moving at the same time to even out nodes that returned or joined; 0: none is
    /// ever moved [default: 0]
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=100))]
    rebalance_max_moves: Option<u16>,
    /// How long to wait until everything is ready
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    wait: Duration,
}

impl Up {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let dir = self.dir(context);
        let dir = local::absolute(&dir)?;
        let known = dir.join(local::file::FILE).exists();
        if !known && !local::is_empty(&dir)? {
            return Err(CliError::local(format!(
                "{} is not empty and has no {}: it belongs to something else; name another \
                 folder with --dir",
                dir.display(),
                local::file::FILE
            )));
        }
        let fresh = !dir.exists();
        std::fs::create_dir_all(&dir)
            .map_err(|e| CliError::local(format!("cannot create {}: {e}", dir.display())))?;
        let dir = local::absolute(&dir)?;
        let lock = LocalCluster::lock(&dir)?;
        let planned = self.plan(&dir, known, &context.host.subnets).await;
        let mut cluster = match planned {
            Ok(cluster) => cluster,
            Err(error) => {
                if fresh {
                    // Only what was made just now; a folder that has something in it stays.
                    let _ = std::fs::remove_file(dir.join(".lock"));
                    let _ = std::fs::remove_dir(&dir);
                }
                return Err(error);
            }
        };
        let idle: Vec<Member> =
            cluster.members().into_iter().filter(|member| member.pid.is_none()).collect();
        if idle.is_empty() {
            return self.runs_already(&cluster).await;
        }
        self.start(&mut cluster, &idle).await?;
        ClusterFile::make_current(&cluster.dir)?;
        drop(lock);
        next_steps(&cluster);
        Ok(ExitCode::SUCCESS)
    }

    fn dir(&self, context: &Context) -> PathBuf {
        let named = context.globals.cluster.as_ref().map(|path| {
            if path.is_file() {
                path.parent().unwrap_or(Path::new(".")).to_owned()
            } else {
                path.clone()
            }
        });
        self.dir.clone().or(named).unwrap_or_else(local::default_dir)
    }

    /// The cluster of the folder, or a new one with its files written. Everything that can be
    /// known to fail fails here, before anything is started.
    async fn plan(&self, dir: &Path, known: bool, subnets: &Subnets) -> Result<LocalCluster> {
        if known {
            let cluster = LocalCluster::open(dir)?;
            self.agrees(&cluster)?;
            if cluster.spec.nodes.iter().any(|node| node.hollow == 0) {
                docker::ping(&docker::address(Some(&cluster.spec.docker))).await?;
            }
            for member in cluster.members().iter().filter(|member| member.pid.is_none()) {
                match (member.role, &cluster.spec.endpoint) {
                    (Role::Master(i), _) => layout::check_ports(&cluster.spec.masters[i])?,
                    (Role::Endpoint, Some(endpoint)) => layout::check_endpoint(endpoint)?,
                    _ => {}
                }
            }
            return Ok(cluster);
        }
        let mut wanted = Wanted {
            masters: self.masters.unwrap_or(3),
            // Whoever asks for hollow nodes alone needs no Docker.
            nodes: self.nodes.unwrap_or(if self.hollow.is_some() { 0 } else { 2 }),
            hollow: self.hollow.unwrap_or(0),
            port_base: self.port_base.unwrap_or(7000),
            advertise_base: self.advertise_base,
            insecure: self.insecure,
            docker: docker::address(self.docker.as_deref()),
            pod_cidr: self.pod_cidr.clone(),
            service_cidr: self.service_cidr.clone(),
            rebalance_max_moves: self.rebalance_max_moves.unwrap_or(0),
        };
        for (flag, text) in [("--pod-cidr", &self.pod_cidr), ("--service-cidr", &self.service_cidr)]
        {
            text.as_deref().map(|text| range(flag, text)).transpose()?;
        }
        if wanted.nodes > 0 {
            docker::ping(&wanted.docker).await?;
            let taken = subnets(wanted.docker.clone()).await.map_err(CliError::local)?;
            wanted.pod_cidr = Some(self.pod_range(wanted.port_base, &taken)?);
        }
        let spec = layout::plan(dir, &wanted);
        spec.masters.iter().try_for_each(layout::check_ports)?;
        spec.endpoint.iter().try_for_each(layout::check_endpoint)?;
        if !spec.insecure {
            pki::ensure(&dir.join("pki"), &spec)?;
        }
        spec.save(dir)?;
        Ok(LocalCluster { dir: dir.to_owned(), spec })
    }

    /// The range for pods: the flag's, or one that no network of Docker's is in.
    fn pod_range(&self, base: u16, taken: &[(String, Ipv4Net)]) -> Result<String> {
        let flag = "--pod-cidr";
        let Some(text) = &self.pod_cidr else { return layout::free_pod_range(base, taken) };
        let wanted = range(flag, text)?;
        match taken.iter().find(|(_, other)| wanted.overlaps(other)) {
            None => Ok(text.clone()),
            Some((name, other)) => Err(CliError::local(format!(
                "{flag} {text} overlaps with the Docker network {name} ({other}): choose another \
                 range, leave the flag out, or remove that network with `docker network rm {name}`"
            ))),
        }
    }

    /// Flags that say something else than the cluster in the folder is.
    fn agrees(&self, cluster: &LocalCluster) -> Result<()> {
        let spec = &cluster.spec;
        let count = |list: usize| u16::try_from(list).unwrap_or(u16::MAX);
        let differs = |flag: Option<u16>, is: u16| flag.is_some_and(|flag| flag != is);
        let text = |flag: &Option<String>, is: &str| flag.as_ref().is_some_and(|flag| flag != is);
        let real = spec.nodes.iter().filter(|node| node.hollow == 0);
        let hollow: u32 = spec.nodes.iter().map(|node| node.hollow).sum();
        let wrong = [
            ("--masters", differs(self.masters, count(spec.masters.len()))),
            ("--nodes", differs(self.nodes, count(real.count()))),
            ("--hollow", self.hollow.is_some_and(|flag| flag != hollow)),
            ("--port-base", differs(self.port_base, spec.port_base)),
            ("--insecure", self.insecure && !spec.insecure),
            ("--rebalance-max-moves", differs(self.rebalance_max_moves, spec.rebalance_max_moves)),
            ("--pod-cidr", text(&self.pod_cidr, &spec.pod_cidr)),
            ("--service-cidr", text(&self.service_cidr, &spec.service_cidr)),
        ];
        match wrong.iter().find(|(_, differs)| *differs) {
            None => Ok(()),
            Some((flag, _)) => Err(CliError::local(format!(
                "{} has a cluster already, and {flag} says something else than it is: leave the \
                 flag out, remove the cluster with `quorate down --dir {}`, or use another --dir",
                cluster.dir.display(),
                cluster.dir.display()
            ))),
        }
    }

    async fn runs_already(&self, cluster: &LocalCluster) -> Result<ExitCode> {
        let dir = cluster.dir.display();
        eprintln!("error: the cluster in {dir} is running already");
        super::status::show(&ClusterFile::load(&cluster.dir)?).await?;
        Err(CliError::Reported)
    }

    /// Starts what does not run, and waits. When it does not become ready, what was started is
    /// stopped again.
    async fn start(&self, cluster: &mut LocalCluster, idle: &[Member]) -> Result<()> {
        let mut progress = Progress::new();
        let spec = &cluster.spec;
        progress.step(&format!(
            "Cluster in {}: {} masters, {} nodes{}",
            cluster.dir.display(),
            spec.masters.len(),
            spec.nodes.len(),
            if idle.len() < cluster.members().len() {
                format!(", {} of them to start", idle.len())
            } else {
                String::new()
            }
        ));
        let mut started = Started::default();
        let result = tokio::select! {
            result = self.bring_up(cluster, idle, &mut started, &mut progress) => result,
            _ = tokio::signal::ctrl_c() => Err(CliError::local("interrupted")),
        };
        let Err(error) = result else { return Ok(()) };
        progress.clear();
        eprintln!("{error}");
        if let Some(member) = started.culprit(cluster) {
            let tail = process::log_tail(&member.log(), LOG_LINES);
            eprintln!("last lines of {}:", member.log().display());
            tail.lines().for_each(|line| eprintln!("  {line}"));
        }
        let members: Vec<Member> =
            cluster.members().into_iter().filter(|m| started.contains(m.role)).collect();
        LocalCluster::stop(&members).await?;
        started.reap();
        eprintln!(
            "What was started is stopped again. The data is in {0}: try `quorate up --dir {0}` \
             again, or remove it with `quorate down --dir {0}`.",
            cluster.dir.display()
        );
        Err(CliError::Reported)
    }

    async fn bring_up(
        &self,
        cluster: &mut LocalCluster,
        idle: &[Member],
        started: &mut Started,
        progress: &mut Progress,
    ) -> Result<()> {
        if !cluster.spec.insecure {
            // A cluster whose certificates were removed gets new ones.
            pki::ensure(&cluster.dir.join("pki"), &cluster.spec)?;
        }
        for member in idle {
            started.add(member.role, cluster.spawn(member.role)?);
        }
        let file = ClusterFile::load(&cluster.dir)?;
        let options = ClientOptions {
            timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(1),
            ..ClientOptions::default()
        };
        let client = Client::from_cluster_file(&file, options)?;
        ready::wait(&client, cluster, started, progress, self.wait).await?;
        write_kubeconfig(&cluster.dir)
    }
}

/// For kubectl. It names the processes' certificates, so it is written anew at every start.
fn write_kubeconfig(dir: &Path) -> Result<()> {
    let config = kubeconfig::of(&ClusterFile::load(dir)?, None)?;
    let text = crate::output::print::to_yaml(&config)?;
    local::file::write_atomically(&dir.join(KUBECONFIG), text.as_bytes(), 0o600)
}

fn next_steps(cluster: &LocalCluster) {
    let spec = &cluster.spec;
    eprintln!("\nThe cluster is ready. It is now the default of all commands; elsewhere:");
    eprintln!("  export QUORATE_CLUSTER={}", cluster.dir.display());
    eprintln!("  export KUBECONFIG={}    # kubectl", cluster.dir.join(KUBECONFIG).display());
    eprintln!("What to do next:");
    eprintln!("  quorate status");
    if !spec.nodes.is_empty() {
        eprintln!("  quorate get nodes -o wide");
        eprintln!("  quorate create deployment web --image IMAGE --replicas 3");
        eprintln!("  quorate get pods -o wide -w");
    }
    if let Some(master) = spec.masters.first() {
        eprintln!(
            "  kill -9 {}    # a master: nobody notices; `quorate up` starts it again",
            master.pid
        );
    }
    eprintln!("  quorate down");
}

/// A flag's range of addresses.
fn range(flag: &str, text: &str) -> Result<Ipv4Net> {
    text.parse().map_err(|e| CliError::local(format!("{flag} {text:?}: {e}")))
}

#[cfg(test)]
#[path = "up_test.rs"]
mod tests;
