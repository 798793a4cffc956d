//! Processes of a local cluster: start, find, stop. The only place that sends signals.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{CliError, Result};

const POLL: Duration = Duration::from_millis(20);

/// Starts this very binary in the background, in a process group of its own, so that neither
/// Ctrl-C nor the end of the terminal reaches it.
///
/// # Errors
/// When the log cannot be opened or the process not be started.
pub fn spawn(args: &[String], log: &Path) -> Result<Child> {
    let failed = |what: &str, e: std::io::Error| CliError::local(format!("cannot {what}: {e}"));
    let exe = std::env::current_exe().map_err(|e| failed("find my own binary", e))?;
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).map_err(|e| failed(&format!("create {}", dir.display()), e))?;
    }
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|e| failed(&format!("open {}", log.display()), e))?;
    let second = file.try_clone().map_err(|e| failed("share the log", e))?;
    Command::new(&exe)
        .args(args)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(second)
        .process_group(0)
        .spawn()
        .map_err(|e| failed(&format!("start {}", exe.display()), e))
}

/// Does the process exist and have this data directory on its command line? Ids are reused by
/// the system, so an id alone proves nothing. A zombie has no command line and is not running.
#[must_use]
pub fn is_ours(pid: u32, data_dir: &Path) -> bool {
    pid != 0 && command_line(pid).is_some_and(|args| owns(&args, data_dir))
}

/// The process with this data directory, wherever it was started from.
#[must_use]
pub fn find(recorded: u32, data_dir: &Path) -> Option<u32> {
    if is_ours(recorded, data_dir) {
        return Some(recorded);
    }
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| is_ours(*pid, data_dir))
}

fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(bytes.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
}

fn owns(args: &[String], data_dir: &Path) -> bool {
    let verbs = ["master", "agent", "endpoint"];
    let daemon = args.get(1).is_some_and(|verb| verbs.contains(&verb.as_str()));
    daemon && args.windows(2).any(|pair| pair[0] == "--data-dir" && Path::new(&pair[1]) == data_dir)
}

/// A process to stop, with the proof that it is ours.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// Process id.
    pub pid: u32,
    /// What its command line must contain.
    pub data_dir: &'a Path,
}

/// SIGTERM to all, then SIGKILL to those that are still there after `grace`. Returns the names
/// of those that had to be killed.
///
/// # Errors
/// When a signal is refused, or a process survives SIGKILL.
pub async fn stop(targets: &[Target<'_>], grace: Duration) -> Result<Vec<String>> {
    for target in targets {
        signal(target, Signal::SIGTERM)?;
    }
    let left = wait_gone(targets, grace).await;
    for target in &left {
        signal(target, Signal::SIGKILL)?;
    }
    let stuck = wait_gone(&left, Duration::from_secs(5)).await;
    if let Some(target) = stuck.first() {
        return Err(CliError::local(format!(
            "{} (pid {}) does not end even after SIGKILL",
            target.name, target.pid
        )));
    }
    Ok(left.iter().map(|target| target.name.to_owned()).collect())
}

fn signal(target: &Target<'_>, signal: Signal) -> Result<()> {
    if !is_ours(target.pid, target.data_dir) {
        return Ok(());
    }
    let Ok(pid) = i32::try_from(target.pid) else { return Ok(()) };
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => {
            Err(CliError::local(format!("cannot stop {} (pid {}): {e}", target.name, target.pid)))
        }
    }
}

async fn wait_gone<'a>(targets: &[Target<'a>], limit: Duration) -> Vec<Target<'a>> {
    let deadline = Instant::now() + limit;
    loop {
        let left: Vec<_> = targets.iter().filter(|t| is_ours(t.pid, t.data_dir)).cloned().collect();
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The last lines of a log, for error messages.
#[must_use]
pub fn log_tail(log: &Path, lines: usize) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    const MOST: u64 = 16 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
