//! `quorate exec` and `quorate attach`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::v1::{AttachOptions, ExecOptions};

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::terminal::{self, Joined};
use crate::{duration, json, pods};

/// Which container, and how our side is joined to it.
#[derive(Args, Debug)]
pub struct Target {
    /// POD · pod/NAME · deploy/NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    what: String,
    /// Name of the container [default: the pod's default container]
    #[arg(long, short)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(long, short = 'i')]
    stdin: bool,
    /// With a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// Print only what the container prints
    #[arg(long, short)]
    quiet: bool,
    /// Wait so long for the container to run
    #[arg(long, value_parser = duration::parse, default_value = "60s")]
    pod_running_timeout: Duration,
}

/// Runs a command in a container.
#[derive(Args, Debug)]
pub struct Exec {
    #[command(flatten)]
    target: Target,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Joins a container's main process.
#[derive(Args, Debug)]
pub struct Attach {
    #[command(flatten)]
    target: Target,
}

/// A container that runs.
struct Found {
    namespace: String,
    pod: String,
    container: String,
    tty: bool,
}

impl Target {
    async fn find(&self, context: &Context) -> Result<Found> {
        let client = context.client()?;
        let pod = pods::one(context, &client, &self.what).await?;
        let container = pods::container(&pod, self.container.as_deref())?;
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let patience = self.pod_running_timeout;
        let pod = pods::wait_begun(&client, &namespace, &name, &container, patience).await?;
        let spec = json::list(&pod.value, "/spec/containers").iter();
        let mut spec = spec.filter(|c| json::text(c, "/name") == container);
        let tty = spec.next().and_then(|c| c.pointer("/tty")?.as_bool()) == Some(true);
        Ok(Found { namespace, pod: name, container, tty })
    }
}

impl Exec {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let found = self.target.find(context).await?;
        let tty = terminal::tty(self.target.tty, self.target.stdin);
        let options = ExecOptions {
            container: found.container,
            command: self.command,
            stdin: self.target.stdin,
            stdout: true,
            stderr: !tty,
            tty,
        };
        let client = context.client()?;
        let stream = client.exec(&found.namespace, &found.pod, options).await?;
        let joined = Joined { stdin: self.target.stdin, tty };
        match terminal::join(stream, joined).await? {
            Some(0) => Ok(ExitCode::SUCCESS),
            Some(code) => {
                if !self.target.quiet {
                    eprintln!("command terminated with exit code {code}");
                }
                Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
            }
            None => Err(CliError::local("the connection ended before the command did")),
        }
    }
}

impl Attach {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let found = self.target.find(context).await?;
        if self.target.tty && !found.tty && !self.target.quiet {
            eprintln!(
                "error: Unable to use a TTY - container {} did not allocate one",
                found.container
            );
        }
        let tty = found.tty && terminal::tty(self.target.tty, self.target.stdin);
        let options = AttachOptions {
            container: found.container,
            stdin: self.target.stdin,
            stdout: true,
            stderr: !tty,
            tty,
        };
        if self.target.stdin && !self.target.quiet {
            eprintln!("If you don't see a command prompt, try pressing enter.");
        }
        let client = context.client()?;
        let stream = client.attach(&found.namespace, &found.pod, options).await?;
        terminal::join(stream, Joined { stdin: self.target.stdin, tty }).await?;
        Ok(ExitCode::SUCCESS)
    }
}
