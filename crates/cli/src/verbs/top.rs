//! `quorate top`

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use quorate_client::v1::{PodUsage, Usage};
use quorate_objects::quantity::Quantity;

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::output::{print, table};
use crate::{json, resource};

/// Shows what nodes and pods use.
#[derive(Args, Debug)]
pub struct Top {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Processor and memory of nodes
    #[command(visible_aliases = ["nodes", "no"])]
    Node(Which),
    /// Processor and memory of pods
    #[command(visible_aliases = ["pods", "po"])]
    Pod(Pods),
}

#[derive(Args, Debug)]
struct Which {
    /// Only this one
    name: Option<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// Largest first
    #[arg(long)]
    sort_by: Option<Sort>,
    /// Without the line of titles
    #[arg(long)]
    no_headers: bool,
}

#[derive(Args, Debug)]
struct Pods {
    #[command(flatten)]
    which: Which,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Each container by itself
    #[arg(long)]
    containers: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    Cpu,
    Memory,
}

const NANOS_PER_MILLI: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn cpu(usage: Usage) -> String {
    format!("{}m", usage.cpu_nanocores.div_ceil(NANOS_PER_MILLI))
}

fn memory(usage: Usage) -> String {
    format!("{}Mi", usage.memory_bytes / MIB)
}

fn add(total: Usage, one: Option<Usage>) -> Usage {
    let one = one.unwrap_or_default();
    Usage {
        cpu_nanocores: total.cpu_nanocores + one.cpu_nanocores,
        memory_bytes: total.memory_bytes + one.memory_bytes,
    }
}

/// A line of the table, and what it is sorted by.
type Row = (Vec<String>, Usage);

impl Top {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        match self.what {
            What::Node(which) => nodes(context, &which).await?,
            What::Pod(pods) => self::pods(context, &pods).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn nodes(context: &Context, which: &Which) -> Result<()> {
    let client = context.client()?;
    let used: BTreeMap<String, Usage> = client
        .usage()
        .await?
        .into_iter()
        .filter_map(|node| Some((node.name, node.report?.node?)))
        .collect();
    let kind = resource::by_name("nodes")?;
    let found = match &which.name {
        Some(name) => vec![client.get(kind, "", name).await?],
        None => list_all(&client, kind, which.selectors.options("")).await?.1,
    };
    let mut rows: Vec<Row> = Vec::new();
    for node in found {
        let Some(usage) = used.get(&node.name).copied() else {
            let unknown = "<unknown>".to_owned();
            let row = [vec![node.name], vec![unknown; 4]].concat();
            rows.push((row, Usage::default()));
            continue;
        };
        let allocatable = |name: &str| {
            let text = json::text(&node.value, &format!("/status/allocatable/{name}"));
            Quantity::parse(text).ok()
        };
        let share = |used: u64, of: Option<i64>| match of.and_then(|of| u64::try_from(of).ok()) {
            Some(of) if of > 0 => format!("{}%", used * 100 / of),
            _ => "<unknown>".to_owned(),
        };
        let millis = usage.cpu_nanocores / NANOS_PER_MILLI;
        let row = vec![
            node.name.clone(),
            cpu(usage),
            share(millis, allocatable("cpu").map(Quantity::millis)),
            memory(usage),
            share(usage.memory_bytes, allocatable("memory").map(Quantity::units)),
        ];
        rows.push((row, usage));
    }
    if let Some(name) =
        which.name.as_ref().filter(|_| rows.iter().all(|(r, _)| r[1] == "<unknown>"))
    {
        return Err(CliError::local(format!("metrics not available yet for node {name}")));
    }
    let titles = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
    show(&titles, rows, which)
}

async fn pods(context: &Context, pods: &Pods) -> Result<()> {
    let client = context.client()?;
    let which = &pods.which;
    let namespace = if pods.all_namespaces { "" } else { context.namespace() };
    let mut used: Vec<PodUsage> =
        client.usage().await?.into_iter().filter_map(|n| n.report).flat_map(|r| r.pods).collect();
    used.retain(|pod| namespace.is_empty() || pod.namespace == namespace);
    if let Some(name) = &which.name {
        used.retain(|pod| pod.name == *name);
    }
    if which.selectors.selector.is_some() || which.selectors.field_selector.is_some() {
        let kind = resource::by_name("pods")?;
        let found = list_all(&client, kind, which.selectors.options(namespace)).await?.1;
        used.retain(|pod| found.iter().any(|o| o.name == pod.name && o.namespace == pod.namespace));
    }
    if used.is_empty() {
        return Err(CliError::local(match (&which.name, namespace) {
            (Some(name), _) => format!("metrics not available yet for pod {name}"),
            (None, "") => "no metrics of pods yet: nodes measure every 10 s".to_owned(),
            (None, namespace) => format!("no metrics of pods in {namespace} namespace yet"),
        }));
    }
    used.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let mut rows: Vec<Row> = Vec::new();
    for pod in used {
        let mut name = vec![pod.name.clone()];
        if pods.all_namespaces {
            name.insert(0, pod.namespace.clone());
        }
        let line =
            |name: Vec<String>, usage| ([name, vec![cpu(usage), memory(usage)]].concat(), usage);
        if pods.containers {
            for container in &pod.containers {
                let name = [name.clone(), vec![container.name.clone()]].concat();
                rows.push(line(name, container.usage.unwrap_or_default()));
            }
        } else {
            let total = pod.containers.iter().fold(Usage::default(), |sum, c| add(sum, c.usage));
            rows.push(line(name, total));
        }
    }
    let mut titles = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
    if pods.containers {
        (titles[0], _) = ("POD", titles.insert(1, "NAME"));
    }
    if pods.all_namespaces {
        titles.insert(0, "NAMESPACE");
    }
    show(&titles, rows, which)
}

fn show(titles: &[&str], mut rows: Vec<Row>, which: &Which) -> Result<()> {
    match which.sort_by {
        Some(Sort::Cpu) => rows.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.cpu_nanocores)),
        Some(Sort::Memory) => rows.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.memory_bytes)),
        None => {}
    }
    let mut lines: Vec<Vec<String>> = Vec::new();
    if !which.no_headers {
        lines.push(titles.iter().map(|title| (*title).to_owned()).collect());
    }
    lines.extend(rows.into_iter().map(|(row, _)| row));
    print::text(&table::render(&lines))
}
