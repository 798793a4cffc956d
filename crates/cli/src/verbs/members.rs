//! `quorate members`

use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::Client;
use quorate_proto::v1;

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::{print, table};

/// Looks after the masters.
#[derive(Args, Debug)]
pub struct Members {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the masters
    List {
        /// json: for programs
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
    /// Add a master; start it afterwards with `quorate master --join`
    Add(Add),
    /// Give a learner that has caught up its vote
    Promote {
        /// The learner
        name: String,
    },
    /// Remove a master for good
    Remove {
        /// The master
        name: String,
    },
    /// Add a master in the place of another one, which is removed first
    Replace {
        /// The one to be removed, usually because its disk is lost
        old: String,
        #[command(flatten)]
        new: Add,
    },
    /// Hand leadership over
    TransferLeader {
        /// To this master [default: the one that is furthest ahead]
        name: Option<String>,
    },
}

#[derive(Args, Debug)]
struct Add {
    /// Name of the new master; not one that was there before
    name: String,
    /// Where the other masters will reach it
    #[arg(long, value_name = "URL")]
    peer_url: String,
    /// Where clients will reach it
    #[arg(long, value_name = "URL")]
    client_url: String,
    /// It shall stay without a vote
    #[arg(long)]
    learner: bool,
}

impl Members {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        match self.action {
            Action::List { output } => list(&client, output.is_some()).await?,
            Action::Add(new) => add(&client, new).await?,
            Action::Promote { name } => {
                client.promote_member(&name).await?;
                print::line(&format!("{name} has a vote"))?;
            }
            Action::Remove { name } => {
                client.remove_member(&name).await?;
                print::line(&format!("{name} removed"))?;
            }
            Action::Replace { old, new } => {
                if old == new.name {
                    let text = "the new master needs a name of its own";
                    return Err(CliError::local(text));
                }
                // First: with a dead member and a new one that has not started, one more
                // failure would cost the majority.
                client.remove_member(&old).await?;
                print::line(&format!("{old} removed"))?;
                add(&client, new).await?;
            }
            Action::TransferLeader { name } => {
                let now = client.transfer_leader(name.as_deref()).await?;
                print::line(&format!("{} leads in term {}", now.leader, now.term))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn add(client: &Client, new: Add) -> Result<()> {
    let Add { name, peer_url, client_url, learner } = new;
    let request = v1::AddMemberRequest { name, peer_url, client_url, learner };
    let member = client.add_member(request).await?;
    let vote = if learner { "" } else { "; it gets its vote once it has caught up" };
    print::line(&format!("{} added as member {}{vote}", member.name, member.id))
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let members = client.members().await?;
    if json {
        let all: Vec<_> = members
            .iter()
            .map(|m| {
                serde_json::json!({
                    "id": m.id, "name": m.name, "peerUrl": m.peer_url, "clientUrl": m.client_url,
                    "learner": m.learner, "leader": m.leader, "lag": m.lag,
                })
            })
            .collect();
        return print::line(&format!("{:#}", serde_json::Value::from(all)));
    }
    let mut rows = vec![["NAME", "ROLE", "CLIENTS", "PEERS"].map(str::to_owned).to_vec()];
    for member in members {
        let role = match (member.leader, member.learner) {
            (true, _) => "leader",
            (_, true) => "learner",
            _ => "follower",
        };
        let v1::Member { name, client_url, peer_url, .. } = member;
        rows.push(vec![name, role.to_owned(), client_url, peer_url]);
    }
    print::text(&table::render(&rows))
}
