//! `quorate set image`

use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::{PatchOptions, PatchType};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::json::{list, text};
use crate::output::print;
use crate::resource::{self, reference};

/// Changes what workloads run.
#[derive(Args, Debug)]
pub struct Set {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Change images of containers
    Image {
        /// TYPE/NAME … CONTAINER=IMAGE …  (* for all containers)
        #[arg(required = true)]
        args: Vec<String>,
    },
}

impl Set {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let Verb::Image { args } = self.verb;
        let (images, what): (Vec<String>, Vec<String>) =
            args.into_iter().partition(|arg| arg.contains('=') && !arg.starts_with('='));
        if images.is_empty() {
            return Err(CliError::local("at least one image update is required"));
        }
        let client = context.client()?;
        for target in resource::parse(&what)? {
            let kind = target.kind;
            let Some(name) = target.name else {
                return Err(CliError::local("required resource not specified: TYPE/NAME"));
            };
            let Some(place) = place_of(kind.kind) else {
                return Err(CliError::local(format!("a {} has no containers", kind.singular)));
            };
            let object = client.get(kind, context.namespace(), name).await?;
            let Some(patch) = patch(&object.value, place, &images)? else { continue };
            let options = PatchOptions::default();
            let (namespace, how) = (context.namespace(), PatchType::Strategic);
            client.patch(kind, namespace, name, how, &patch, &options).await?;
            print::line(&format!("{} image updated", reference(kind, name)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the pod spec of a kind is.
fn place_of(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&["spec"]),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => {
            Some(&["spec", "template", "spec"])
        }
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => None,
    }
}

/// The patch that sets the images; `None`: they are so already.
fn patch(object: &Value, place: &[&str], images: &[String]) -> Result<Option<Value>> {
    let pointer = format!("/{}", place.join("/"));
    let mut spec = json!({});
    for image in images {
        let (name, image) = image.split_once('=').unwrap_or((image, ""));
        let mut found = false;
        for field in ["containers", "initContainers"] {
            for container in list(object, &format!("{pointer}/{field}")) {
                let this = text(container, "/name");
                if this != name && name != "*" {
                    continue;
                }
                found = true;
                if text(container, "/image") != image {
                    let changes = spec
                        .as_object_mut()
                        .map(|spec| spec.entry(field).or_insert_with(|| json!([])));
                    if let Some(Value::Array(changes)) = changes {
                        changes.push(json!({"name": this, "image": image}));
                    }
                }
            }
        }
        if !found {
            return Err(CliError::local(format!("unable to find container named {name:?}")));
        }
    }
    if spec.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(None);
    }
    Ok(Some(place.iter().rev().fold(spec, |inner, field| json!({*field: inner}))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_name_what_changes() {
        let containers = json!([{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]);
        let web = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let place = place_of("Deployment").unwrap();
        let of = |images: &[&str]| {
            patch(&web, place, &images.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>())
        };
        let one = of(&["a=x:2"]).unwrap().unwrap();
        let changed = json!([{"name": "a", "image": "x:2"}]);
        assert_eq!(one["spec"]["template"]["spec"]["containers"], changed);
        let all = of(&["*=z"]).unwrap().unwrap();
        assert_eq!(all["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
        assert!(of(&["a=x:1"]).unwrap().is_none(), "nothing changes");
        assert!(of(&["c=x:1"]).is_err());
    }
}
