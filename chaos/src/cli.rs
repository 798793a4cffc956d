//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use quorate_testkit::Options;

use crate::disk::Names;
use crate::evidence::Evidence;
use crate::failover::{self, How};
use crate::plan::{Abilities, Ability, Plan, SCENARIOS};
use crate::report::verdict_lines;
use crate::run::{Cluster, Config, run};
use crate::verdicts;

/// Breaks a Quorate cluster on purpose, and judges what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "quorate chaos", bin_name = "quorate chaos", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local cluster, break it, and judge; exits with 1 when a promise is broken
    Run(Box<Run>),
    /// Measure how long it takes after the leader is gone until clients are served again
    Failover(Failover),
    /// Judge the evidence of an earlier run again
    Judge {
        /// evidence.json of a run
        evidence: PathBuf,
    },
    /// List the named scenarios
    Scenarios,
}

/// What to run.
#[derive(Args, Debug)]
struct Run {
    /// Named scenario (see `quorate chaos scenarios`)
    #[arg(long, conflicts_with_all = ["plan", "steps"])]
    scenario: Option<String>,
    /// Plan in YAML, as an earlier run has written it or by hand
    #[arg(long, conflicts_with = "steps")]
    plan: Option<PathBuf>,
    /// Random faults (the default), of every kind that is possible
    #[arg(long, conflicts_with_all = ["plan", "scenario"])]
    random: bool,
    /// Number of random steps [default: 20]
    #[arg(long)]
    steps: Option<usize>,
    /// What random faults may use [default: everything but members and disks, with --random
    /// everything]
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["plan", "scenario"])]
    faults: Vec<Ability>,
    /// Seed of all choices [default: a fresh one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Break this running cluster, by its folder (`quorate up --dir`), instead of one that is
    /// started for the purpose; it must be said what may be broken, with --allow
    #[arg(long, value_name = "DIR", requires = "allow",
          conflicts_with_all = ["masters", "nodes", "hollow", "tls"])]
    cluster: Option<PathBuf>,
    /// With --cluster: what may be broken. Leadership is handed over in any case
    #[arg(long, value_enum, value_delimiter = ',', requires = "cluster")]
    allow: Vec<Ability>,
    /// Number of masters
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    masters: u16,
    /// Number of nodes on this machine's Docker
    #[arg(long, default_value_t = 0)]
    nodes: u16,
    /// Give each node a host of its own: a network namespace with an address, a link that can be
    /// cut, and a Docker daemon that can be killed and paused. Needs root, and about 120 MB for
    /// each
    #[arg(long, conflicts_with_all = ["cluster", "tls", "no_links"])]
    own_docker: bool,
    /// Number of hollow nodes: pods only pretend to run there
    #[arg(long, default_value_t = 0)]
    hollow: u32,
    /// Number of clients
    #[arg(long, default_value_t = 9)]
    clients: u32,
    /// Steps after which everything is judged and forgotten: a long run needs no more memory than
    /// a short one
    #[arg(long, default_value_t = 25)]
    window: usize,
    /// After a violation keep its evidence and go on with a new cluster
    #[arg(long)]
    keep_going: bool,
    /// Do not put a proxy between the processes (no partitions then)
    #[arg(long)]
    no_links: bool,
    /// Disks lose new names in directories that were not synced, even of files that were: POSIX
    /// allows it, though file systems of Linux do not do it
    #[arg(long)]
    posix_disks: bool,
    /// Start the cluster with this binary, of an older version for instance; what is started
    /// again later is of this one's. With --scenario rolling that is an upgrade
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    from_binary: Option<PathBuf>,
    /// Speak TLS, and not etcd's API
    #[arg(long)]
    tls: bool,
    /// Folder for report, evidence and logs [default: quorate-chaos-SEED]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep the logs of all processes even when all is well
    #[arg(long)]
    keep_logs: bool,
}

/// What to measure.
#[derive(Args, Debug)]
struct Failover {
    /// How often, for each way of --how
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: u32,
    /// What happens to the leader; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,terminate,cut")]
    how: Vec<How>,
    /// Measure this system the same way in the same run
    #[arg(long)]
    peer: Option<Peer>,
    /// Do not measure until the next pod is bound
    #[arg(long)]
    no_pods: bool,
    /// Write the figures here too, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Systems to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    /// Debian's etcd-server, with its defaults.
    Etcd,
}

impl Failover {
    async fn run(self) -> Result<ExitCode> {
        let options = failover::Options {
            kills: self.kills as usize,
            how: self.how,
            etcd: self.peer == Some(Peer::Etcd),
            pods: !self.no_pods,
        };
        let figures = failover::measure(&options).await?;
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_vec_pretty(&figures)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        print!("{}", figures.table());
        Ok(ExitCode::SUCCESS)
    }
}

impl Cli {
    /// Carries the command out.
    ///
    /// # Errors
    /// When it cannot be carried out; a broken promise is no error but the exit code 1.
    pub async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => args.run().await,
            Command::Failover(args) => args.run().await,
            Command::Judge { evidence } => judge(&evidence),
            Command::Scenarios => {
                for (name, what, _) in SCENARIOS {
                    println!("{name:<12} {what}");
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Run {
    async fn run(self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(rand::random);
        eprintln!("seed {seed}");
        let plan = self.plan(seed)?;
        let needs = plan.needs();
        let default = || format!("quorate-chaos-{}", plan.seed).into();
        let out = self.out.clone().unwrap_or_else(default);
        let config = Config {
            cluster: self.cluster(&needs)?,
            window: self.window,
            keep_going: self.keep_going,
            plan,
            clients: self.clients,
            keep_logs: self.keep_logs,
            out: out.clone(),
        };
        let report = run(config).await?;
        println!("{}", report.summary());
        println!("{}", out.join("report.html").display());
        Ok(exit_code(!report.failed()))
    }

    /// The cluster to break, with what its plan `needs`.
    fn cluster(&self, needs: &Abilities) -> Result<Cluster> {
        if let Some(folder) = &self.cluster {
            check_allowed(&self.allow)?;
            let allowed = self.allow.iter().copied().collect();
            return Ok(Cluster::Running { folder: folder.clone(), allowed });
        }
        let own_docker = self.own_docker || needs.contains(&Ability::Docker);
        if own_docker && self.nodes == 0 {
            bail!("--nodes: hosts are for nodes; say how many");
        }
        let options = Options {
            masters: self.masters,
            nodes: self.nodes,
            own_docker,
            hollow: self.hollow,
            insecure: !self.tls,
            links: !self.no_links,
            spare_place: needs.contains(&Ability::Members),
            first_binary: self.from_binary.clone(),
            ..Options::default()
        };
        let names = if self.posix_disks { Names::WithDirectory } else { Names::WithFile };
        Ok(Cluster::Own { options, disks: needs.contains(&Ability::Disks).then_some(names) })
    }

    fn plan(&self, seed: u64) -> Result<Plan> {
        if let Some(name) = &self.scenario {
            return Plan::scenario(name, seed);
        }
        if let Some(path) = &self.plan {
            let plan = Plan::load(path)?;
            return Ok(Plan { seed: self.seed.unwrap_or(plan.seed), ..plan });
        }
        let steps = self.steps.unwrap_or(20);
        if steps == 0 {
            bail!("--steps: at least 1");
        }
        Ok(Plan::random(seed, steps, &self.abilities()))
    }

    /// What random faults may use.
    fn abilities(&self) -> Abilities {
        use Ability::{Clock, Disks, Docker, Members, Network, Nodes, Pods, Processes};
        let wanted: &[Ability] = match (self.faults.as_slice(), self.random) {
            ([], _) if self.cluster.is_some() => &self.allow,
            ([], false) => &[Processes, Network, Nodes, Pods, Docker],
            ([], true) => &[Processes, Network, Nodes, Pods, Docker, Disks, Members, Clock],
            (named, _) => named,
        };
        let nodes = self.nodes > 0 || self.hollow > 0 || self.cluster.is_some();
        let possible = |ability: &&Ability| match ability {
            Network => !self.no_links,
            Nodes | Pods => nodes,
            Members => self.masters > 2,
            Docker => self.own_docker,
            Clock => self.cluster.is_none(),
            Processes | Disks => true,
        };
        wanted.iter().filter(possible).copied().collect()
    }
}

/// Of a running cluster, only what can be undone from outside may be broken.
fn check_allowed(allow: &[Ability]) -> Result<()> {
    use Ability::{Nodes, Pods, Processes};
    match allow.iter().find(|ability| !matches!(ability, Nodes | Pods | Processes)) {
        None => Ok(()),
        Some(ability) => bail!(
            "--allow: {} can only be broken in a cluster that is started for the purpose (leave \
             out --cluster); here there are processes, nodes and pods",
            format!("{ability:?}").to_lowercase()
        ),
    }
}

fn judge(path: &PathBuf) -> Result<ExitCode> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let evidence: Evidence = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no evidence of a run", path.display()))?;
    let verdicts = verdicts::judge(&evidence);
    println!("{}", verdict_lines(&verdicts).join("\n"));
    Ok(exit_code(!verdicts::any_violation(&verdicts)))
}

fn exit_code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
