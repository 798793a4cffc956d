//! The `quorate` binary: configuration and composition, nothing else.

mod agent;
mod endpoint;
mod explain;
mod listen;
mod logging;
mod master;
mod members;
mod shutdown;
mod snapshot;
mod stall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quorate_cli::{Globals, Host, Purged};

/// A fifth of a loaded master's time was glibc's malloc; with many small messages of many sizes
/// on several threads this one takes a quarter of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A container orchestrator whose masters may die at any moment without anyone noticing.
#[derive(Parser)]
#[command(name = "quorate", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a master in the foreground
    Master(Box<master::MasterArgs>),
    /// Run a node's agent in the foreground
    Agent(Box<agent::AgentArgs>),
    /// Pass connections to a master that lives, in the foreground
    Endpoint(Box<endpoint::EndpointArgs>),
    #[command(flatten)]
    User(Box<quorate_cli::Command>),
}

fn main() -> ExitCode {
    let cli: Cli = match quorate_cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the asynchronous runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match cli.command {
            Command::Master(args) => daemon(master::run(*args)).await,
            Command::Agent(args) => daemon(agent::run(*args)).await,
            Command::Endpoint(args) => daemon(endpoint::run(*args)).await,
            Command::User(command) => quorate_cli::run::<Cli>(*command, cli.globals, host()).await,
        }
    })
}

/// Runs a daemon; the one place where its failure is reported.
async fn daemon(run: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    if let Err(error) = logging::init() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn host() -> Host {
    Host {
        verify_snapshot: Box::new(|file| Box::pin(snapshot::verify(file))),
        restore_snapshot: Box::new(|request| Box::pin(snapshot::restore(request))),
        version: env!("CARGO_PKG_VERSION"),
        purge: Box::new(|docker, cluster, volumes| {
            Box::pin(async move {
                let purged = quorate_agent::purge(&docker, &cluster, volumes).await;
                purged
                    .map(|p| Purged {
                        containers: p.containers,
                        networks: p.networks,
                        volumes: p.volumes,
                    })
                    .map_err(|error| error.to_string())
            })
        }),
        subnets: Box::new(|docker| {
            Box::pin(async move {
                let subnets = quorate_agent::subnets(&docker).await.map_err(|e| e.to_string())?;
                Ok(subnets.into_iter().map(|subnet| (subnet.network, subnet.range)).collect())
            })
        }),
    }
}
