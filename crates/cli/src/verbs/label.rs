//! `quorate label` and `quorate annotate`

use std::process::ExitCode;

use clap::Args;
use quorate_client::{PatchOptions, PatchType};
use serde_json::{Map, Value, json};

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::resource::{self, reference};

/// Changes labels.
#[derive(Args, Debug)]
pub struct Label {
    #[command(flatten)]
    change: Change,
}

/// Changes annotations.
#[derive(Args, Debug)]
pub struct Annotate {
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
struct Change {
    /// pod NAME · deploy/web, then KEY=VALUE to set and KEY- to remove
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME…] KEY=VALUE|KEY-")]
    words: Vec<String>,
    /// Replace values that are there
    #[arg(long)]
    overwrite: bool,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selectors: Selectors,
}

impl Label {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.change.run(context, "labels", "labeled").await
    }
}

impl Annotate {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.change.run(context, "annotations", "annotated").await
    }
}

impl Change {
    async fn run(self, context: &Context, field: &str, done: &str) -> Result<ExitCode> {
        self.selectors.check()?;
        let (objects, changes) = split(&self.words)?;
        let client = context.client()?;
        for target in resource::parse(&objects)? {
            let kind = target.kind;
            let namespace = context.namespace_for(kind);
            let found = match target.name {
                Some(name) => vec![client.get(kind, namespace, name).await?],
                None if self.all || self.selectors.any() => {
                    list_all(&client, kind, self.selectors.options(namespace)).await?.1
                }
                None => return Err(CliError::local("give names, a selector (-l) or --all")),
            };
            for object in found {
                let present = &object.value["metadata"][field];
                let taken = |(key, value): &(&String, &Value)| {
                    !value.is_null()
                        && !present[key.as_str()].is_null()
                        && present[key.as_str()] != **value
                };
                if let Some((key, _)) = changes.iter().find(taken).filter(|_| !self.overwrite) {
                    return Err(CliError::local(format!(
                        "'{key}' already has a value ({}), and --overwrite is false",
                        crate::json::plain(&present[key.as_str()])
                    )));
                }
                let patch = json!({"metadata": {field: changes}});
                let options = PatchOptions::default();
                let after = client
                    .patch(kind, namespace, &object.name, PatchType::Merge, &patch, &options)
                    .await?;
                let word = if after.revision == object.revision { "not changed" } else { done };
                print::line(&format!("{} {word}", reference(kind, &object.name)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Objects first, changes after them.
fn split(words: &[String]) -> Result<(Vec<String>, Map<String, Value>)> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let first = words.iter().position(is_change).unwrap_or(words.len());
    let mut changes = Map::new();
    for word in &words[first..] {
        match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => changes.insert(key.to_owned(), json!(value)),
            (None, Some(key)) => changes.insert(key.to_owned(), Value::Null),
            (None, None) => {
                return Err(CliError::local(format!(
                    "{word:?} is neither KEY=VALUE nor KEY-; names of objects come first"
                )));
            }
        };
    }
    if changes.is_empty() {
        return Err(CliError::local("at least one KEY=VALUE or KEY- is required"));
    }
    Ok((words[..first].to_vec(), changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (objects, changes) = split(&words("pod a b x=1 y-")).unwrap();
        assert_eq!(objects, ["pod", "a", "b"]);
        assert_eq!(Value::Object(changes), json!({"x": "1", "y": null}));
        assert!(split(&words("pod a")).is_err());
        assert!(split(&words("pod a x=1 b")).is_err());
    }
}
