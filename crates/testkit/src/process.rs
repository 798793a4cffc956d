//! The `quorate` binary as a process: found, run, and judged by what it prints.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

/// Longest time that any command may take; one that should be prompt is checked for that.
const LIMIT: Duration = Duration::from_secs(90);

/// Where the `quorate` binary is: `QUORATE_BIN`, or beside the running test or program.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUORATE_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "QUORATE_BIN names {}, which is no file", path.display());
        return Ok(path);
    }
    let own = std::env::current_exe().context("where this program is")?;
    // target/debug/quorate-demo, or target/debug/deps/t10_basic-0123456789abcdef
    let found =
        own.ancestors().skip(1).take(2).map(|dir| dir.join("quorate")).find(|p| p.is_file());
    found.with_context(|| {
        format!(
            "no `quorate` binary beside {}: build it first (`cargo build --workspace --bins`, \
             or `make e2e`), or name it in QUORATE_BIN",
            own.display()
        )
    })
}

/// The command line of a process, which tells whose it is: ids are reused. Empty when there is
/// none, and for one that is ending.
pub(crate) fn command_line(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

/// Has a process given back everything, or is there none? One that is ending loses its command
/// line before its sockets: only a zombie all of whose other threads have ended holds nothing.
pub(crate) fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        None | Some('X') => true,
        Some('Z') => threads() <= 1,
        Some(_) => false,
    }
}

/// Does a text hold all of these?
///
/// # Errors
/// The first that is missing, with the text.
pub fn has(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "no “{part}” in:\n{text}");
    }
    Ok(())
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Output {
    /// Standard output of a command that must have succeeded.
    ///
    /// # Errors
    /// When it did not; the error carries all it printed.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == Some(0), "{self}");
        Ok(self.stdout)
    }

    /// Standard output of a command that must have succeeded, as JSON.
    ///
    /// # Errors
    /// When it did not, or printed something else.
    pub fn json(self) -> Result<Value> {
        let command = self.command.clone();
        let text = self.ok()?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` printed no JSON: {text}"))
    }

    /// Checks that the command failed, that its standard error contains every one of `parts`
    /// (in any case of letters), that it is not a panic, and returns the standard error.
    ///
    /// # Errors
    /// When one of these is not so.
    pub fn fails_with(self, parts: &[&str]) -> Result<String> {
        ensure!(self.code.is_some_and(|code| code != 0), "should have failed: {self}");
        ensure!(!self.stderr.contains("panicked at"), "panicked: {self}");
        let text = self.stderr.to_lowercase();
        for part in parts {
            ensure!(text.contains(&part.to_lowercase()), "no “{part}” in the message: {self}");
        }
        Ok(self.stderr)
    }

    /// Checks that the command ended within `limit`.
    ///
    /// # Errors
    /// When it took longer.
    pub fn within(self, limit: Duration) -> Result<Self> {
        ensure!(self.elapsed <= limit, "took longer than {limit:?}: {self}");
        Ok(self)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "`{}` exited {code}", self.command)?,
            None => write!(f, "`{}` was ended by a signal", self.command)?,
        }
        write!(f, " after {:.1?}", self.elapsed)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Runs `program` to its end, with `input` on its standard input.
///
/// # Errors
/// When it cannot be started, or does not end.
pub async fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    env: &[(&str, &OsStr)],
    input: Option<&str>,
) -> Result<Output> {
    run_within(LIMIT, program, args, env, input).await
}

/// The same for a command that may take longer than most.
///
/// # Errors
/// As [`run`].
pub async fn run_within<S: AsRef<OsStr>>(
    limit: Duration,
    program: impl AsRef<OsStr>,
    args: &[S],
    env: &[(&str, &OsStr)],
    input: Option<&str>,
) -> Result<Output> {
    let program = program.as_ref();
    let command = describe(program, args);
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting `{command}`"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        use tokio::io::AsyncWriteExt;
        // A command that fails early closes its input: its message counts, not ours.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    let Ok(ended) = tokio::time::timeout(limit, child.wait_with_output()).await else {
        bail!("`{command}` did not end within {limit:?}");
    };
    let ended = ended.with_context(|| format!("waiting for `{command}`"))?;
    Ok(Output {
        command,
        code: ended.status.code(),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        elapsed: start.elapsed(),
    })
}

fn describe<S: AsRef<OsStr>>(program: &OsStr, args: &[S]) -> String {
    let name = std::path::Path::new(program).file_name().unwrap_or(program);
    let mut text = name.to_string_lossy().into_owned();
    for arg in args {
        text.push(' ');
        text.push_str(&arg.as_ref().to_string_lossy());
    }
    text
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
