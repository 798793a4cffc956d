//! `quorate delete`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, DeleteOptions, Event, WatchOptions};
use quorate_objects::Kind;
use tokio::time::{Instant, timeout_at};

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::{duration, json, manifests, resource};

/// When `--timeout` says nothing.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Deletes objects.
#[derive(Args, Debug)]
pub struct Delete {
    /// pod NAME … · deploy/web · pods (with --all or a selector)
    #[arg(value_name = "TYPE[/NAME] [NAME…]", required_unless_present = "filename")]
    what: Vec<String>,
    /// Files or folders with manifests, or - for standard input
    #[arg(long, short, value_name = "FILE", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// Look into folders inside folders too
    #[arg(long, short = 'R')]
    recursive: bool,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of the kinds
    #[arg(long)]
    all: bool,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Seconds that pods get to stop; -1: what the pods say
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// The same as --grace-period=1
    #[arg(long)]
    now: bool,
    /// Do not wait for the node: with --grace-period=0 the object goes at once
    #[arg(long)]
    force: bool,
    /// Return only when the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// How long to wait; 0: as long as it takes
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    /// background, foreground or orphan
    #[arg(long, default_value = "background",
          value_parser = ["background", "foreground", "orphan"])]
    cascade: String,
    /// No error when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// "name": names only
    #[arg(long, short, value_parser = ["name"])]
    output: Option<String>,
}

struct Victim {
    kind: &'static Kind,
    namespace: String,
    name: String,
}

struct Dying {
    victim: Victim,
    uid: String,
}

impl Delete {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let grace = self.grace()?;
        let client = context.client()?;
        let (victims, mut failed) = self.victims(context, &client).await?;
        let mut dying = Vec::new();
        for victim in victims {
            match self.delete(&client, &victim, grace).await {
                Ok(None) => {}
                Ok(Some(uid)) => dying.push(Dying { victim, uid }),
                Err(error) if error.is_not_found() && self.ignore_not_found => {}
                Err(CliError::BrokenPipe) => return Err(CliError::BrokenPipe),
                Err(error) => {
                    eprintln!("{error}");
                    failed = true;
                }
            }
        }
        if self.wait {
            self.wait_gone(&client, &dying).await?;
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn grace(&self) -> Result<Option<u32>> {
        if self.now && self.grace_period >= 0 {
            return Err(CliError::local("--now and --grace-period cannot be specified together"));
        }
        match self.grace_period {
            _ if self.now => Ok(Some(1)),
            -1 if self.force => Ok(Some(0)),
            -1 => Ok(None),
            // As kubectl: without --force nobody loses a container that still runs.
            0 if !self.force => Ok(Some(1)),
            seconds => u32::try_from(seconds)
                .map(Some)
                .map_err(|_| CliError::local("--grace-period must be -1 or a number of seconds")),
        }
    }

    async fn victims(&self, context: &Context, client: &Client) -> Result<(Vec<Victim>, bool)> {
        if !self.filename.is_empty() {
            let flag = context.globals.namespace.as_deref();
            let found = manifests::read(&self.filename, self.recursive, flag)?;
            for problem in &found.problems {
                eprintln!("{problem}");
            }
            let victim = |item: manifests::Item| Victim {
                kind: item.kind,
                namespace: json::namespace(&item.value).to_owned(),
                name: json::name(&item.value).to_owned(),
            };
            let failed = !found.problems.is_empty();
            return Ok((found.items.into_iter().map(victim).collect(), failed));
        }
        let mut victims = Vec::new();
        for target in resource::parse(&self.what)? {
            let kind = target.kind;
            let namespace = if self.all_namespaces { "" } else { context.namespace_for(kind) };
            if let Some(name) = target.name {
                if self.all || self.selectors.any() {
                    return Err(CliError::local(
                        "name cannot be provided when a selector or --all is specified",
                    ));
                }
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                victims.push(Victim { kind, namespace, name });
                continue;
            }
            if !self.all && !self.selectors.any() {
                return Err(CliError::local(
                    "resource(s) were provided, but no name was specified: give names, a \
                     selector (-l) or --all",
                ));
            }
            let (_, found) = list_all(client, kind, self.selectors.options(namespace)).await?;
            let victim =
                |o: quorate_client::Object| Victim { kind, namespace: o.namespace, name: o.name };
            victims.extend(found.into_iter().map(victim));
        }
        if victims.is_empty() {
            eprintln!("No resources found");
        }
        Ok((victims, false))
    }

    /// Deletes one; the uid when it goes on for a while.
    async fn delete(
        &self,
        client: &Client,
        victim: &Victim,
        grace: Option<u32>,
    ) -> Result<Option<String>> {
        let options = DeleteOptions {
            grace_seconds: grace,
            propagation: match self.cascade.as_str() {
                "foreground" => "Foreground",
                "orphan" => "Orphan",
                _ => "Background",
            }
            .to_owned(),
            ..DeleteOptions::default()
        };
        let deleted = client.delete(victim.kind, &victim.namespace, &victim.name, &options).await?;
        if self.output.is_some() {
            print::line(&resource::reference(victim.kind, &victim.name))?;
        } else {
            let group = if victim.kind.group.is_empty() {
                String::new()
            } else {
                format!(".{}", victim.kind.group)
            };
            let forced = if self.force && grace == Some(0) { "force deleted" } else { "deleted" };
            let place = if victim.namespace.is_empty() {
                String::new()
            } else {
                format!(" from {} namespace", victim.namespace)
            };
            print::line(&format!(
                "{}{group} {:?} {forced}{place}",
                victim.kind.singular, victim.name
            ))?;
        }
        Ok((!deleted.gone).then_some(deleted.object.uid))
    }

    async fn wait_gone(&self, client: &Client, dying: &[Dying]) -> Result<()> {
        let limit = if self.timeout.is_zero() { LONGEST } else { self.timeout };
        let deadline = Instant::now() + limit;
        for one in dying {
            timeout_at(deadline, gone(client, one)).await.map_err(|_| {
                CliError::local(format!(
                    "timed out waiting for the deletion of {}",
                    resource::reference(one.victim.kind, &one.victim.name)
                ))
            })??;
        }
        Ok(())
    }
}

/// Waits until the object is gone, or another one has its name.
async fn gone(client: &Client, dying: &Dying) -> Result<()> {
    let Victim { kind, namespace, name } = &dying.victim;
    let watch = || {
        let options = WatchOptions {
            namespace: namespace.clone(),
            fields: format!("metadata.name={name}"),
            ..WatchOptions::default()
        };
        (client.watch(kind, options), false)
    };
    let (mut changes, mut seen) = watch();
    loop {
        match changes.next().await {
            Ok(Event::Added(object) | Event::Modified(object)) if object.uid == dying.uid => {
                seen = true;
            }
            Ok(Event::Bookmark(_)) if seen => {}
            // Deleted, replaced by another one, or all that is there has come without it.
            Ok(_) => return Ok(()),
            // History ran away from us: begin again with what is there.
            Err(error) if error.is_gone() => (changes, seen) = watch(),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        delete: Delete,
    }

    fn grace(line: &str) -> Result<Option<u32>> {
        let args = ["delete"].into_iter().chain(line.split(' '));
        Line::try_parse_from(args).unwrap().delete.grace()
    }

    #[test]
    fn grace_periods() {
        assert_eq!(grace("pod a").unwrap(), None);
        assert_eq!(grace("pod a --now").unwrap(), Some(1));
        assert_eq!(grace("pod a --grace-period 7").unwrap(), Some(7));
        assert_eq!(grace("pod a --grace-period=0").unwrap(), Some(1));
        assert_eq!(grace("pod a --grace-period=0 --force").unwrap(), Some(0));
        assert_eq!(grace("pod a --force").unwrap(), Some(0));
        assert!(grace("pod a --now --grace-period=3").is_err());
        assert!(grace("pod a --grace-period=-7").is_err());
    }

    #[test]
    fn wait_can_be_switched_off() {
        let wait = |args: &[&str]| {
            let args = ["delete", "pod", "a"].iter().chain(args);
            Line::try_parse_from(args).map(|line| line.delete.wait)
        };
        assert!(wait(&[]).unwrap());
        assert!(wait(&["--wait"]).unwrap());
        assert!(!wait(&["--wait=false"]).unwrap());
        assert!(Line::try_parse_from(["delete"]).is_err(), "nothing to delete");
    }
}
