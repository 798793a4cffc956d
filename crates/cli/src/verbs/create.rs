//! `quorate create -f FILE` and `create deployment|job|cronjob|namespace|configmap`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_client::{Client, WriteOptions};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::{Format, print};
use crate::resource::{self, Target, kind_of, reference};
use crate::{json, manifests};

/// Creates objects.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Create {
    #[command(subcommand)]
    what: Option<What>,
    /// Files or folders with manifests, or - for standard input
    #[arg(long, short, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Look into folders inside folders too
    #[arg(long, short = 'R')]
    recursive: bool,
    #[command(flatten)]
    write: Write,
}

/// Flags of all verbs that write objects.
#[derive(Args, Clone, Debug, Default)]
pub struct Write {
    /// none, client (only print) or server (check everything, keep nothing)
    #[arg(long, default_value = "none", default_missing_value = "client", num_args = 0..=1,
          require_equals = true, value_parser = ["none", "client", "server"])]
    pub dry_run: String,
    /// Format of the answer
    #[arg(long, short)]
    pub output: Option<Format>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Create a deployment
    #[command(visible_alias = "deploy")]
    Deployment {
        name: String,
        /// Image of the container; several for several containers
        #[arg(long, required = true)]
        image: Vec<String>,
        /// Number of pods
        #[arg(long, short, default_value_t = 1)]
        replicas: u32,
        /// Port that the container listens on
        #[arg(long)]
        port: Option<u16>,
        #[command(flatten)]
        write: Write,
        /// Command of the container
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Create a job
    Job {
        name: String,
        /// Image of the container
        #[arg(long, required_unless_present = "from", conflicts_with = "from")]
        image: Option<String>,
        /// cronjob/NAME: what it runs, now
        #[arg(long, value_name = "cronjob/NAME")]
        from: Option<String>,
        #[command(flatten)]
        write: Write,
        /// Command of the container
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Create a cron job
    #[command(visible_alias = "cj")]
    Cronjob {
        name: String,
        /// Image of the container
        #[arg(long)]
        image: String,
        /// minute hour day-of-month month day-of-week
        #[arg(long)]
        schedule: String,
        /// What happens when the container fails
        #[arg(long, default_value = "OnFailure", value_parser = ["OnFailure", "Never"])]
        restart: String,
        #[command(flatten)]
        write: Write,
        /// Command of the container
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Create a namespace
    #[command(visible_alias = "ns")]
    Namespace {
        name: String,
        #[command(flatten)]
        write: Write,
    },
    /// Create a config map
    #[command(visible_alias = "cm")]
    Configmap {
        name: String,
        /// KEY=VALUE
        #[arg(long, value_name = "KEY=VALUE")]
        from_literal: Vec<String>,
        /// [KEY=]FILE
        #[arg(long, value_name = "[KEY=]FILE")]
        from_file: Vec<String>,
        #[command(flatten)]
        write: Write,
    },
}

impl Create {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        if let Some(what) = self.what {
            let (value, write) = what.object(&client, context.namespace()).await?;
            return write.create(&client, value).await.map(|()| ExitCode::SUCCESS);
        }
        let namespace = context.globals.namespace.as_deref();
        let found = manifests::read(&self.filename, self.recursive, namespace)?;
        let mut failed = !found.problems.is_empty();
        for problem in &found.problems {
            eprintln!("{problem}");
        }
        for item in found.items {
            if let Err(error) = self.write.create(&client, item.value).await {
                failed = true;
                report(&item.origin, error)?;
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Prints why one document failed, so that the others can go on.
pub fn report(origin: &str, error: CliError) -> Result<()> {
    match error {
        CliError::BrokenPipe => return Err(CliError::BrokenPipe),
        CliError::Server { reason, message } => {
            eprintln!("Error from server ({reason}): {origin}: {message}");
        }
        CliError::Local(message) => eprintln!("error: {origin}: {message}"),
        CliError::Plain(message) => eprintln!("{origin}: {message}"),
        CliError::Reported => {}
    }
    Ok(())
}

impl Write {
    /// For the client.
    pub fn options(&self) -> WriteOptions {
        WriteOptions { dry_run: self.dry_run == "server", ..WriteOptions::default() }
    }

    /// Shall nothing be sent?
    pub fn client_only(&self) -> bool {
        self.dry_run == "client"
    }

    /// Creates one object and says so.
    pub async fn create(&self, client: &Client, value: Value) -> Result<()> {
        let value = if self.client_only() {
            value
        } else {
            client.create(&value, &self.options()).await?.value
        };
        self.say(&value, "created")
    }

    /// Prints what happened to an object, or the object.
    pub fn say(&self, value: &Value, verb: &str) -> Result<()> {
        let name = reference(kind_of(value)?, json::name(value));
        match &self.output {
            None | Some(Format::Wide) => {
                let note = match self.dry_run.as_str() {
                    "client" => " (dry run)",
                    "server" => " (server dry run)",
                    _ => "",
                };
                print::line(&format!("{name} {verb}{note}"))
            }
            Some(Format::Name) => print::line(&name),
            Some(Format::Json) => print::text(&print::to_json(value)?),
            Some(Format::Yaml) => print::text(&print::to_yaml(value)?),
            Some(Format::JsonPath(path)) => print::text(&path.render(value)),
            Some(Format::Columns(columns)) => print::line(&columns.row(value).join("   ")),
        }
    }
}

impl What {
    async fn object(self, client: &Client, namespace: &str) -> Result<(Value, Write)> {
        match self {
            Self::Job { name, from: Some(from), write, .. } => {
                let target = [from];
                let [Target { kind, name: Some(from) }] = resource::parse(&target)?[..] else {
                    return Err(CliError::local("from must be cronjob/NAME"));
                };
                if kind.kind != "CronJob" {
                    return Err(CliError::local("from must be an existing cronjob"));
                }
                let cron_job = client.get(kind, namespace, from).await?;
                Ok((job_from(&name, &cron_job.value), write))
            }
            Self::Job { name, image, from: None, write, command } => {
                let image = image.unwrap_or_default();
                let metadata = json!({"name": name, "namespace": namespace});
                let template = ended_template(&name, &image, "Never", &command);
                let value = json!({
                    "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
                    "spec": {"template": template},
                });
                Ok((value, write))
            }
            Self::Cronjob { name, image, schedule, restart, write, command } => {
                let metadata = json!({"name": name, "namespace": namespace});
                let template = ended_template(&name, &image, &restart, &command);
                let job = json!({"metadata": {"name": name}, "spec": {"template": template}});
                let value = json!({
                    "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
                    "spec": {"schedule": schedule, "jobTemplate": job},
                });
                Ok((value, write))
            }
            Self::Namespace { name, write } => Ok((
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
                write,
            )),
            Self::Deployment { name, image, replicas, port, write, command } => {
                let value = deployment(&name, namespace, &image, replicas, port, &command);
                Ok((value, write))
            }
            Self::Configmap { name, from_literal, from_file, write } => {
                let data = config_data(&from_literal, &from_file)?;
                let metadata = json!({"name": name, "namespace": namespace});
                let value = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data,
                });
                Ok((value, write))
            }
        }
    }
}

fn deployment(
    name: &str,
    namespace: &str,
    images: &[String],
    replicas: u32,
    port: Option<u16>,
    command: &[String],
) -> Value {
    let container = |image: &String| {
        let mut container = json!({"name": container_name(image), "image": image});
        if let Some(port) = port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        container
    };
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": images.iter().map(container).collect::<Vec<_>>()},
            },
        },
    })
}

/// A template of pods that end.
fn ended_template(name: &str, image: &str, restart: &str, command: &[String]) -> Value {
    let mut container = json!({"name": name, "image": image});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({"spec": {"restartPolicy": restart, "containers": [container]}})
}

/// A job that runs now what a cron job runs at its times, and belongs to it.
fn job_from(name: &str, cron_job: &Value) -> Value {
    let template = &cron_job["spec"]["jobTemplate"];
    let metadata = &cron_job["metadata"];
    let mut annotations = template["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations["cronjob.kubernetes.io/instantiate"] = json!("manual");
    let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"],
        "uid": metadata["uid"], "controller": true});
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": metadata["namespace"],
            "annotations": annotations, "ownerReferences": [owner]},
        "spec": template["spec"],
    });
    if template["metadata"]["labels"].is_object() {
        job["metadata"]["labels"] = template["metadata"]["labels"].clone();
    }
    job
}

/// `registry:5000/team/web:1.2` gives `web`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.replace(['_', '.'], "-").to_lowercase()
}

fn config_data(literals: &[String], files: &[String]) -> Result<Value> {
    let mut data = json!({});
    let mut add = |key: &str, text: String| {
        if data.get(key).is_some() {
            return Err(CliError::local(format!("cannot add key {key:?}: it is there already")));
        }
        data[key] = Value::String(text);
        Ok(())
    };
    for literal in literals {
        let (key, text) = literal.split_once('=').ok_or_else(|| {
            CliError::local(format!("invalid literal source {literal:?}, expected key=value"))
        })?;
        add(key, text.to_owned())?;
    }
    for file in files {
        let (key, path) = match file.split_once('=') {
            Some((key, path)) => (key.to_owned(), path),
            None => {
                let name =
                    PathBuf::from(file).file_name().map(|n| n.to_string_lossy().into_owned());
                (name.unwrap_or_default(), file.as_str())
            }
        };
        let text = std::fs::read_to_string(path)
            .map_err(|e| CliError::local(format!("cannot read {path}: {e}")))?;
        add(&key, text)?;
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers() {
        assert_eq!(container_name("registry:5000/team/web_app:1.2"), "web-app");
        assert_eq!(container_name("nginx"), "nginx");
        assert_eq!(container_name("a/b@sha256:00"), "b");
    }

    #[test]
    fn a_job_of_a_cron_job() {
        let spec = json!({"template": {"spec": {"containers": []}}});
        let cron_job = json!({"metadata": {"name": "backup", "namespace": "default", "uid": "u"},
            "spec": {"jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}});
        let job = job_from("now", &cron_job);
        assert_eq!(job["spec"], spec);
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "u");
        let manual = &job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"];
        assert_eq!(manual, "manual");
    }

    #[test]
    fn data_of_config_maps() {
        let data = config_data(&["a=1".into(), "b=x=y".into()], &[]).unwrap();
        assert_eq!(data, json!({"a": "1", "b": "x=y"}));
        assert!(config_data(&["a".into()], &[]).is_err());
        assert!(config_data(&["a=1".into(), "a=2".into()], &[]).is_err());
    }
}
