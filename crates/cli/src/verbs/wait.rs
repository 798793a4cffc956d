//! `quorate wait`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::{Client, Event, Object, WatchOptions};
use quorate_objects::Kind;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::resource::{self, reference};
use crate::{duration, json};
use quorate_objects::jsonpath::JsonPath;

/// Waits.
#[derive(Args, Debug)]
pub struct Wait {
    /// pod/NAME · pods (with --all or -l)
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME…]")]
    what: Vec<String>,
    /// condition=TYPE[=STATUS], jsonpath={.path}=VALUE, create or delete
    #[arg(long = "for", value_name = "WHAT", value_parser = Goal::parse)]
    goal: Goal,
    /// How long; 0: look once
    #[arg(long, default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    selectors: Selectors,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Goal {
    Condition(String, String),
    Path(JsonPath, Option<String>),
    Created,
    Deleted,
}

impl Goal {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "delete" => return Ok(Self::Deleted),
            "create" => return Ok(Self::Created),
            _ => {}
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, status) = rest.split_once('=').unwrap_or((rest, "True"));
            return Ok(Self::Condition(name.to_owned(), status.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let (path, wanted) = match rest.rfind("}=") {
                Some(at) => (&rest[..=at], Some(rest[at + 2..].to_owned())),
                None => (rest, None),
            };
            return Ok(Self::Path(path.trim_matches('\'').parse()?, wanted));
        }
        Err(format!("unrecognized condition: {text:?}"))
    }

    /// `None`: the object does not exist.
    fn met(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Self::Created, Some(_)) => true,
            (Self::Condition(name, status), Some(object)) => {
                json::list(object, "/status/conditions").iter().any(|c| {
                    json::text(c, "/type").eq_ignore_ascii_case(name)
                        && json::text(c, "/status").eq_ignore_ascii_case(status)
                })
            }
            (Self::Path(path, wanted), Some(object)) => {
                let found = path.render(object);
                wanted.as_ref().map_or(!found.is_empty(), |wanted| found == *wanted)
            }
        }
    }
}

impl Wait {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let client = context.client()?;
        let deadline = Instant::now() + self.timeout.max(Duration::from_millis(1));
        let mut waiting = Vec::new();
        for target in resource::parse(&self.what)? {
            let kind = target.kind;
            let namespace = if self.all_namespaces { "" } else { context.namespace_for(kind) };
            match target.name {
                Some(name) => waiting.push((kind, namespace.to_owned(), name.to_owned())),
                None if self.all || self.selectors.any() => {
                    let options = self.selectors.options(namespace);
                    let found = list_all(&client, kind, options).await?.1;
                    waiting.extend(found.into_iter().map(|o: Object| (kind, o.namespace, o.name)));
                }
                None => {
                    return Err(CliError::local("give names, a selector (-l) or --all"));
                }
            }
        }
        if waiting.is_empty() && self.goal != Goal::Deleted {
            return Err(CliError::local("no matching resources found"));
        }
        let mut late = false;
        for (kind, namespace, name) in waiting {
            match timeout_at(deadline, self.one(&client, kind, &namespace, &name)).await {
                Ok(result) => result?,
                Err(_) => {
                    late = true;
                    let reference = reference(kind, &name);
                    eprintln!("error: timed out waiting for the condition on {reference}");
                }
            }
        }
        Ok(if late { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn one(
        &self,
        client: &Client,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<()> {
        let done = if self.goal == Goal::Deleted { "deleted" } else { "condition met" };
        // Also says so at once when the object does not exist and its creation is not awaited.
        match client.get(kind, namespace, name).await {
            Ok(object) if self.goal.met(Some(&object.value)) => {
                return print::line(&format!("{} {done}", reference(kind, name)));
            }
            Err(error) if error.is_not_found() && self.goal.met(None) => {
                return print::line(&format!("{} {done}", reference(kind, name)));
            }
            Err(error) if error.is_not_found() && self.goal == Goal::Created => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        loop {
            let options = WatchOptions {
                namespace: namespace.to_owned(),
                fields: format!("metadata.name={name}"),
                ..WatchOptions::default()
            };
            match self.follow(client.watch(kind, options)).await {
                Ok(()) => return print::line(&format!("{} {done}", reference(kind, name))),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn follow(
        &self,
        mut watch: quorate_client::Watch,
    ) -> Result<(), quorate_client::ClientError> {
        let mut seen = false;
        loop {
            let met = match watch.next().await? {
                Event::Added(object) | Event::Modified(object) => {
                    seen = true;
                    self.goal.met(Some(&object.value))
                }
                Event::Deleted(_) => self.goal.met(None),
                // All that is there has come; an object that has not is not there.
                Event::Bookmark(_) => !seen && self.goal.met(None),
            };
            if met {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn goals() {
        let pod = json!({"status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let met = |goal: &str| Goal::parse(goal).unwrap().met(Some(&pod));
        assert!(met("condition=Ready"));
        assert!(met("condition=ready=true"));
        assert!(!met("condition=Ready=False"));
        assert!(met("jsonpath={.status.phase}=Running"));
        assert!(met("jsonpath={.status.phase}"));
        assert!(!met("jsonpath={.status.phase}=Pending"));
        assert!(!met("jsonpath={.status.podIP}"));
        assert!(!met("delete") && met("create"));
        assert!(Goal::Deleted.met(None));
        assert!(!Goal::parse("condition=Ready").unwrap().met(None));
        assert!(Goal::parse("nonsense").is_err());
    }
}
