//! `quorate run NAME --image IMAGE`

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::verbs::create::Write;

/// Runs an image in a pod.
#[derive(Args, Debug)]
pub struct Run {
    /// Name of the pod
    name: String,
    /// The image
    #[arg(long)]
    image: String,
    /// Port that the container listens on
    #[arg(long)]
    port: Option<u16>,
    /// Environment variables
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Labels: KEY=VALUE,… [default: run=NAME]
    #[arg(long, short, value_name = "KEY=VALUE")]
    labels: Option<String>,
    /// What happens when the container ends
    #[arg(long, default_value = "Always", ignore_case = true)]
    restart: Restart,
    /// When the image is fetched
    #[arg(long, value_name = "Always|IfNotPresent|Never")]
    image_pull_policy: Option<String>,
    /// What follows -- is the command, not its arguments
    #[arg(long)]
    command: bool,
    #[command(flatten)]
    write: Write,
    /// Arguments of the container
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Restart {
    #[value(name = "Always")]
    Always,
    #[value(name = "OnFailure")]
    OnFailure,
    #[value(name = "Never")]
    Never,
}

impl Run {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let pod = self.pod(context.namespace())?;
        self.write.create(&context.client()?, pod).await?;
        Ok(ExitCode::SUCCESS)
    }

    fn pod(&self, namespace: &str) -> Result<Value> {
        let mut container = json!({"name": self.name, "image": self.image});
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if self.command && self.args.is_empty() {
            return Err(CliError::local("--command needs a command after --"));
        }
        if !self.args.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.args);
        }
        if !self.env.is_empty() {
            let variables = self.env.iter().map(|text| {
                let (name, value) = pair(text, "--env")?;
                Ok(json!({"name": name, "value": value}))
            });
            container["env"] = Value::Array(variables.collect::<Result<_>>()?);
        }
        let mut labels = json!({});
        for text in self.labels.iter().flat_map(|all| all.split(',')) {
            let (key, value) = pair(text, "--labels")?;
            labels[key] = json!(value);
        }
        if self.labels.is_none() {
            labels["run"] = json!(self.name);
        }
        let policy = match self.restart {
            Restart::Always => "Always",
            Restart::OnFailure => "OnFailure",
            Restart::Never => "Never",
        };
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": namespace, "labels": labels},
            "spec": {"containers": [container], "restartPolicy": policy},
        }))
    }
}

fn pair<'a>(text: &'a str, flag: &str) -> Result<(&'a str, &'a str)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(CliError::local(format!("{flag}: {text:?} is not KEY=VALUE"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn pod(line: &str) -> Result<Value> {
        let args = ["run"].into_iter().chain(line.split(' '));
        Line::try_parse_from(args).unwrap().run.pod("default")
    }

    #[test]
    fn pods() {
        let made = pod("web --image i --port 80 --env A=b=c --restart never -- x -y").unwrap();
        assert_eq!(made["metadata"]["labels"], json!({"run": "web"}));
        assert_eq!(made["spec"]["restartPolicy"], "Never");
        let container = &made["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["x", "-y"]));
        assert_eq!(container["env"], json!([{"name": "A", "value": "b=c"}]));
        assert_eq!(container["ports"], json!([{"containerPort": 80}]));
        let made = pod("web --image i --labels a=b,c=d --command -- sh").unwrap();
        assert_eq!(made["metadata"]["labels"], json!({"a": "b", "c": "d"}));
        assert_eq!(made["spec"]["containers"][0]["command"], json!(["sh"]));
    }

    #[test]
    fn mistakes() {
        assert!(pod("web --image i --env A").is_err());
        assert!(pod("web --image i --labels =b").is_err());
        assert!(pod("web --image i --command").is_err());
    }
}
