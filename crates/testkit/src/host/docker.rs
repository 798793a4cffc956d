//! The Docker daemon of a host, with a containerd of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, remains};
use crate::docker::{Daemon, docker};
use crate::process;
use crate::wait::wait_for;

/// How long a daemon may take to answer: after a crash it first ends the containers that it does
/// not keep, with ten seconds of grace for each.
const PATIENCE: Duration = Duration::from_secs(90);
/// Its own network, which nothing uses; every host has the same.
const OWN_NETWORK: &str = "172.30.0.1/24";

/// The two daemons in the order in which they start.
const CONTAINERD: usize = 0;
const DOCKERD: usize = 1;

#[derive(Debug)]
pub(super) struct Engine {
    name: String,
    folder: PathBuf,
    pub(super) live_restore: bool,
    /// Process ids of containerd and dockerd, as they were started last.
    pids: Mutex<[Option<i32>; 2]>,
}

impl Engine {
    pub(super) fn new(name: &str, live_restore: bool) -> Result<Self> {
        let folder = remains::folder(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { name: name.to_owned(), folder, live_restore, pids: Mutex::default() })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    pub(super) fn client(&self) -> Daemon {
        Daemon::at(&self.socket())
    }

    async fn configure(&self) -> Result<()> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut config = serde_json::json!({
            "hosts": [format!("unix://{}", self.socket().display())],
            "containerd": path("containerd.sock"),
            "data-root": path("images"),
            "exec-root": path("run"),
            "pidfile": path("docker.pid"),
            "bip": OWN_NETWORK,
            "cgroup-parent": format!("/{}", self.name),
            "live-restore": self.live_restore,
            "userland-proxy": false,
            "log-driver": "json-file",
        });
        // What works for the machine's daemon works here; without one, Docker chooses.
        let driver = ["info", "--format", "{{.Driver}}"].map(str::to_owned);
        if let Ok(driver) = docker(&driver).await {
            config["storage-driver"] = driver.trim().into();
        }
        fs::write(self.folder.join("daemon.json"), config.to_string())?;
        let containerd = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = \
             [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("containerd"),
            path("run-containerd"),
            path("containerd.sock"),
            path("containerd.sock.ttrpc")
        );
        Ok(fs::write(self.folder.join("containerd.toml"), containerd)?)
    }

    pub(super) async fn start(&self, host: &Host) -> Result<()> {
        if !self.folder.join("daemon.json").exists() {
            self.configure().await?;
        }
        self.go_on();
        if !self.runs(CONTAINERD) {
            self.spawn(CONTAINERD, host, "containerd", ["--config", "containerd.toml"])?;
        }
        if !self.runs(DOCKERD) {
            // A number that somebody else has by now would keep it from starting.
            let _ = fs::remove_file(self.folder.join("docker.pid"));
            self.spawn(DOCKERD, host, "dockerd", ["--config-file", "daemon.json"])?;
        }
        let client = self.client();
        let what = format!("Docker answers on {}", self.name);
        let answers = wait_for(&what, PATIENCE, async || {
            ensure!(self.runs(DOCKERD), "it has ended");
            client.run(&["version".to_owned()]).await.map(drop)
        });
        answers.await.map(drop).with_context(|| self.last_words())
    }

    fn spawn(&self, which: usize, host: &Host, program: &str, args: [&str; 2]) -> Result<()> {
        let log = self.folder.join(format!("{program}.log"));
        let log = fs::OpenOptions::new().append(true).create(true).open(log)?;
        let mut child = host
            .command(program)
            .arg(args[0])
            .arg(self.folder.join(args[1]))
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {program} on {}", self.name))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)[which] = pid;
        // Task "reaper": without it a killed daemon would stay as a zombie.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    /// Its process, when it runs.
    fn pid(&self, which: usize) -> Option<i32> {
        let pid = self.pids.lock().unwrap_or_else(PoisonError::into_inner)[which]?;
        process::command_line(pid).contains(&*self.folder.to_string_lossy()).then_some(pid)
    }

    fn runs(&self, which: usize) -> bool {
        self.pid(which).is_some()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // First the one that would notice the other's end.
        for which in [DOCKERD, CONTAINERD] {
            let pid = self.pid(which).with_context(|| format!("Docker of {} ended", self.name))?;
            kill(Pid::from_raw(pid), signal)?;
        }
        Ok(())
    }

    pub(super) async fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        wait_for(&format!("the end of Docker on {}", self.name), PATIENCE, async || {
            ensure!(!self.runs(DOCKERD) && !self.runs(CONTAINERD), "it is still there");
            Ok(())
        })
        .await
        .map(drop)
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub(super) fn go_on(&self) {
        for pid in [CONTAINERD, DOCKERD].into_iter().filter_map(|which| self.pid(which)) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }

    /// Removes what a machine keeps in memory, and has lost when it comes up again.
    pub(super) fn forget_memory(&self) -> Result<()> {
        for name in ["run", "run-containerd"] {
            let folder = self.folder.join(name);
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("removing {}", folder.display()))?;
            }
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n");
        format!("last lines of Docker on {}:\n{last}", self.name)
    }
}
