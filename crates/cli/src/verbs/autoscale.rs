//! `quorate autoscale`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::resource;
use crate::verbs::create::Write;

/// Makes an autoscaler.
#[derive(Args, Debug)]
pub struct Autoscale {
    /// deploy/NAME · rs/NAME · sts/NAME
    #[arg(required = true, value_name = "TYPE/NAME")]
    what: Vec<String>,
    /// Fewest pods
    #[arg(long)]
    min: Option<u32>,
    /// Most pods
    #[arg(long)]
    max: u32,
    /// Percent of the requested processor that pods shall use on average
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<u32>,
    /// The same as 80%, or an amount per pod: 500m
    #[arg(long, value_name = "AMOUNT", conflicts_with = "cpu_percent")]
    cpu: Option<String>,
    /// Memory per pod: 70% of what is requested, or an amount: 200Mi
    #[arg(long, value_name = "AMOUNT")]
    memory: Option<String>,
    /// Name of the autoscaler [default: that of what it scales]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    write: Write,
}

impl Autoscale {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        for target in resource::parse(&self.what)? {
            let kind = target.kind;
            if !["Deployment", "ReplicaSet", "StatefulSet"].contains(&kind.kind) {
                return Err(CliError::local(format!("cannot autoscale a {}", kind.singular)));
            }
            let Some(name) = target.name else {
                return Err(CliError::local("required resource not specified: TYPE/NAME"));
            };
            client.get(kind, context.namespace(), name).await?;
            let value = self.autoscaler(&kind.api_version(), kind.kind, context.namespace(), name);
            self.write.create(&client, value).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn autoscaler(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
        let mut metrics = Vec::new();
        let percent = self.cpu_percent.map(|percent| format!("{percent}%"));
        if let Some(amount) = percent.as_ref().or(self.cpu.as_ref()) {
            metrics.push(metric("cpu", amount));
        }
        if let Some(amount) = &self.memory {
            metrics.push(metric("memory", amount));
        }
        let target = json!({"apiVersion": api_version, "kind": kind, "name": name});
        let mut spec = json!({"scaleTargetRef": target, "maxReplicas": self.max});
        if let Some(min) = self.min {
            spec["minReplicas"] = json!(min);
        }
        if !metrics.is_empty() {
            spec["metrics"] = json!(metrics);
        }
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": self.name.as_deref().unwrap_or(name), "namespace": namespace},
            "spec": spec,
        })
    }
}

fn metric(name: &str, amount: &str) -> Value {
    let target = match amount.strip_suffix('%').and_then(|percent| percent.parse::<u32>().ok()) {
        Some(percent) => json!({"type": "Utilization", "averageUtilization": percent}),
        None => json!({"type": "AverageValue", "averageValue": amount}),
    };
    json!({"type": "Resource", "resource": {"name": name, "target": target}})
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        verb: Autoscale,
    }

    #[test]
    fn targets_are_shares_or_amounts() {
        let args = "x deploy/web --min 2 --max 5 --cpu-percent 70 --memory 200Mi";
        let verb = Line::try_parse_from(args.split(' ')).unwrap().verb;
        let value = verb.autoscaler("apps/v1", "Deployment", "default", "web");
        let metrics = &value["spec"]["metrics"];
        assert_eq!(metrics[0]["resource"]["target"]["averageUtilization"], 70);
        assert_eq!(metrics[1]["resource"]["target"]["averageValue"], "200Mi");
        assert_eq!(
            (&value["spec"]["minReplicas"], &value["metadata"]["name"]),
            (&json!(2), &json!("web"))
        );
        assert!(Line::try_parse_from("x deploy/web".split(' ')).is_err(), "--max is needed");
    }
}
