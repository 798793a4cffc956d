//! The verbs, one file each.

mod apply;
mod autoscale;
mod chaos;
mod completion;
mod cordon;
mod cp;
mod create;
mod delete;
mod describe;
mod down;
mod drain;
mod events;
mod exec;
mod get;
mod kubeconfig;
mod label;
mod logs;
mod members;
mod port_forward;
mod rollout;
mod run;
mod scale;
mod set;
mod snapshot;
mod status;
mod top;
mod up;
mod version;
mod wait;
mod why;

use std::process::ExitCode;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Result;

/// All commands but the daemons.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a local cluster of real processes in the background
    Up(up::Up),
    /// Stop a local cluster and remove it
    Down(down::Down),
    /// Show masters, leader, nodes, and how much may still fail
    Status(status::Status),
    /// Look after the masters
    Members(members::Members),
    /// Save the cluster's state, and make a new cluster from it
    Snapshot(snapshot::Snapshot),
    /// Show objects
    Get(get::Get),
    /// Show objects in detail
    Describe(describe::Describe),
    /// Create objects from files
    Create(create::Create),
    /// Create objects from files, or bring them to what the files say
    Apply(apply::Apply),
    /// Run an image in a pod
    Run(run::Run),
    /// Delete objects
    Delete(delete::Delete),
    /// Change the number of replicas
    Scale(scale::Scale),
    /// Scale by what pods use
    Autoscale(autoscale::Autoscale),
    /// Change what workloads run
    Set(set::Set),
    /// Print a container's log
    Logs(logs::Logs),
    /// Show why a pod runs where it runs, or why nowhere
    Why(why::Why),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Join a container's main process
    Attach(exec::Attach),
    /// Copy files to and from containers
    Cp(cp::Cp),
    /// Forward local ports to a pod
    PortForward(port_forward::PortForward),
    /// Show what nodes and pods use
    Top(top::Top),
    /// Show events
    Events(events::Events),
    /// Look after a rollout
    Rollout(rollout::Rollout),
    /// Change labels
    Label(label::Label),
    /// Change annotations
    Annotate(label::Annotate),
    /// Keep new pods away from nodes
    Cordon(cordon::Cordon),
    /// Empty nodes, as disruption budgets allow
    Drain(drain::Drain),
    /// Let new pods onto nodes again
    Uncordon(cordon::Uncordon),
    /// Wait for a condition, a value, or a deletion
    Wait(wait::Wait),
    /// Print a configuration for kubectl and other Kubernetes clients
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Break a cluster on purpose, and judge what its clients saw
    Chaos(chaos::Chaos),
    /// Print a shell's completion script
    Completion(completion::Completion),
    /// Print the versions of this binary and of the masters
    Version(version::Version),
}

impl Command {
    /// Runs it. The futures are large and few, so they live on the heap.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode> {
        match self {
            Self::Up(verb) => Box::pin(verb.run(context)).await,
            Self::Down(verb) => Box::pin(verb.run(context)).await,
            Self::Status(verb) => Box::pin(verb.run(context)).await,
            Self::Members(verb) => Box::pin(verb.run(context)).await,
            Self::Snapshot(verb) => Box::pin(verb.run(context)).await,
            Self::Get(verb) => Box::pin(verb.run(context)).await,
            Self::Describe(verb) => Box::pin(verb.run(context)).await,
            Self::Create(verb) => Box::pin(verb.run(context)).await,
            Self::Apply(verb) => Box::pin(verb.run(context)).await,
            Self::Run(verb) => Box::pin(verb.run(context)).await,
            Self::Delete(verb) => Box::pin(verb.run(context)).await,
            Self::Autoscale(verb) => Box::pin(verb.run(context)).await,
            Self::Set(verb) => Box::pin(verb.run(context)).await,
            Self::Drain(verb) => Box::pin(verb.run(context)).await,
            Self::Scale(verb) => Box::pin(verb.run(context)).await,
            Self::Logs(verb) => Box::pin(verb.run(context)).await,
            Self::Exec(verb) => Box::pin(verb.run(context)).await,
            Self::Attach(verb) => Box::pin(verb.run(context)).await,
            Self::Cp(verb) => Box::pin(verb.run(context)).await,
            Self::PortForward(verb) => Box::pin(verb.run(context)).await,
            Self::Top(verb) => Box::pin(verb.run(context)).await,
            Self::Events(verb) => Box::pin(verb.run(context)).await,
            Self::Rollout(verb) => Box::pin(verb.run(context)).await,
            Self::Label(verb) => Box::pin(verb.run(context)).await,
            Self::Annotate(verb) => Box::pin(verb.run(context)).await,
            Self::Cordon(verb) => Box::pin(verb.run(context)).await,
            Self::Uncordon(verb) => Box::pin(verb.run(context)).await,
            Self::Why(verb) => Box::pin(verb.run(context)).await,
            Self::Wait(verb) => Box::pin(verb.run(context)).await,
            Self::Kubeconfig(verb) => verb.run(context),
            Self::Chaos(verb) => verb.run(),
            Self::Completion(verb) => verb.run(context),
            Self::Version(verb) => Box::pin(verb.run(context)).await,
        }
    }
}
