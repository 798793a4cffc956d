//! Real kubectl, of several versions, against a test cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::cluster::TestCluster;
use crate::process::Output;

/// Longest time that a command may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Further kubectls, as paths separated by colons.
const MORE: &str = "QUORATE_KUBECTL";

/// One kubectl, talking to one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    /// `1.37`
    pub version: String,
}

impl Kubectl {
    /// All that are to be tested: those that `deploy/install-kubectl.sh` has installed, and those
    /// that QUORATE_KUBECTL names; the newest first.
    ///
    /// # Errors
    /// When there is none, or one does not work.
    pub async fn all(cluster: &TestCluster) -> Result<Vec<Self>> {
        let mut programs = installed()?;
        let more = std::env::var_os(MORE).unwrap_or_default();
        programs.extend(std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()));
        let mut all = Vec::new();
        for program in programs {
            all.push(Self::open(&program, cluster).await?);
        }
        let minor = |kubectl: &Self| kubectl.version.split('.').nth(1).map(str::parse::<u32>);
        all.sort_by_key(|kubectl| std::cmp::Reverse(minor(kubectl).and_then(Result::ok)));
        ensure!(!all.is_empty(), "no kubectl: run deploy/install-kubectl.sh");
        Ok(all)
    }

    /// The newest one.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub async fn newest(cluster: &TestCluster) -> Result<Self> {
        Self::all(cluster).await?.into_iter().next().context("no kubectl")
    }

    async fn open(program: &Path, cluster: &TestCluster) -> Result<Self> {
        let mut kubectl = Self {
            program: program.to_owned(),
            kubeconfig: cluster.dir().join("kubeconfig"),
            home: cluster.dir().join("kubectl-home"),
            version: String::new(),
        };
        std::fs::create_dir_all(&kubectl.home)?;
        let version = kubectl.run(&["version", "--client", "-o", "json"]).await?.json()?;
        let part = |name: &str| version["clientVersion"][name].as_str().map(str::to_owned);
        let parts = part("major").zip(part("minor"));
        let (major, minor) = parts.with_context(|| format!("no version: {version}"))?;
        kubectl.version = format!("{major}.{}", minor.trim_end_matches('+'));
        Ok(kubectl)
    }

    /// The same kubectl with another kubeconfig, given as text: another user, or another server.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn with_kubeconfig(&self, text: &str) -> Result<Self> {
        let mut file = tempfile::Builder::new().prefix("kubeconfig-").tempfile_in(&self.home)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        // It goes with the cluster's folder.
        let (_, kubeconfig) = file.keep()?;
        Ok(Self { kubeconfig, ..self.clone() })
    }

    /// The minor version: 37 of 1.37.
    #[must_use]
    pub fn minor(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }

    /// A command that can be changed before it runs.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            // Its caches of what is served are this cluster's.
            .env("HOME", &self.home)
            .env("KUBECACHEDIR", self.home.join(&self.version))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        self.run_with(args, None).await
    }

    /// Runs a command that reads `stdin`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(&self, args: &[&str], stdin: Option<&str>) -> Result<Output> {
        let mut command = self.command(args);
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let name = format!("kubectl({}) {}", self.version, args.join(" "));
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("running {name}"))?;
        if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
            pipe.write_all(text.as_bytes()).await.context("writing to kubectl")?;
        }
        let ended = tokio::time::timeout(LIMIT, child.wait_with_output());
        let output = ended.await.with_context(|| format!("`{name}`: not within {LIMIT:?}"))??;
        Ok(Output {
            command: name,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed: start.elapsed(),
        })
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args).await?.ok()
    }

    /// Creates or changes what a manifest says.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        self.run_with(&["apply", "-f", "-"], Some(manifest)).await?.ok()
    }

    /// Starts a command that runs on until it is dropped.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        self.command(args).spawn().with_context(|| format!("running kubectl {}", args.join(" ")))
    }
}

fn installed() -> Result<Vec<PathBuf>> {
    let folder = match std::env::var_os("QUORATE_KUBECTL_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("no HOME")?)
            .join(".cache/quorate-kubectl"),
    };
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl-"))
    };
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).collect())
}
