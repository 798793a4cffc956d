//! `quorate describe`

mod node;
mod pod;
mod workload;
mod writer;

use std::process::ExitCode;

use clap::Args;
use quorate_client::{Client, ListOptions, Object};
use quorate_objects::Kind;
use serde_json::Value;

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::json::{int, list, text};
use crate::output::print;
use crate::resource;
pub use writer::Writer;

/// Shows objects in detail, with their events.
#[derive(Args, Debug)]
pub struct Describe {
    /// pod/NAME · deploy web · nodes · pods -l app=web
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME…]")]
    what: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

impl Describe {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let client = context.client()?;
        let mut found: Vec<(&'static Kind, Object)> = Vec::new();
        for target in resource::parse(&self.what)? {
            let kind = target.kind;
            let namespace = if self.all_namespaces { "" } else { context.namespace_for(kind) };
            match target.name {
                Some(name) => {
                    found.extend(named(&client, kind, namespace, name).await?);
                }
                None => {
                    let options = self.selectors.options(namespace);
                    let all = list_all(&client, kind, options).await?.1;
                    found.extend(all.into_iter().map(|object| (kind, object)));
                }
            }
        }
        if found.is_empty() {
            eprintln!("No resources found");
        }
        for (at, (kind, object)) in found.iter().enumerate() {
            if at > 0 {
                print::text("\n\n")?;
            }
            let mut writer = Writer::new(quorate_objects::time::timestamp());
            describe(&client, kind, &object.value, &mut writer).await?;
            events(&client, kind, object, &mut writer).await?;
            print::text(&writer.finish())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The object of that name or, as kubectl does, all whose names begin with it.
async fn named(
    client: &Client,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
) -> Result<Vec<(&'static Kind, Object)>> {
    let error: CliError = match client.get(kind, namespace, name).await {
        Ok(object) => return Ok(vec![(kind, object)]),
        Err(error) => error.into(),
    };
    if !error.is_not_found() {
        return Err(error);
    }
    let options = ListOptions { namespace: namespace.to_owned(), ..ListOptions::default() };
    let all = list_all(client, kind, options).await?.1;
    let matching: Vec<_> =
        all.into_iter().filter(|o| o.name.starts_with(name)).map(|o| (kind, o)).collect();
    if matching.is_empty() { Err(error) } else { Ok(matching) }
}

async fn describe(client: &Client, kind: &Kind, value: &Value, w: &mut Writer) -> Result<()> {
    w.field("Name", text(value, "/metadata/name"));
    if kind.namespaced {
        w.field("Namespace", text(value, "/metadata/namespace"));
    }
    match kind.kind {
        "Pod" => pod::describe(value, w),
        "Deployment" => workload::deployment(client, value, w).await?,
        "ReplicaSet" => workload::replica_set(value, w),
        "Service" => workload::service(client, value, w).await?,
        "Node" => node::describe(client, value, w).await?,
        _ => generic(value, w),
    }
    Ok(())
}

/// Labels and annotations; the long text of `apply` is left out.
fn metadata(value: &Value, w: &mut Writer) {
    w.map("Labels", value.pointer("/metadata/labels"));
    let mut annotations = value["metadata"]["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        map.remove(crate::merge::LAST_APPLIED);
    }
    w.map("Annotations", Some(&annotations));
}

/// Kinds without a view of their own: everything but what was shown already.
fn generic(value: &Value, w: &mut Writer) {
    metadata(value, w);
    let Some(fields) = value.as_object() else { return };
    for (name, field) in fields {
        if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            w.value(name, field);
        }
    }
}

async fn events(client: &Client, kind: &Kind, object: &Object, w: &mut Writer) -> Result<()> {
    if kind.kind == "Event" {
        return Ok(());
    }
    let fields = format!("involvedObject.kind={},involvedObject.name={}", kind.kind, object.name);
    let namespace = object.namespace.clone();
    let options = ListOptions { namespace, fields, ..ListOptions::default() };
    let found = list_all(client, resource::by_name("events")?, options).await?.1;
    let mut found: Vec<Value> = found.into_iter().map(|event| event.value).collect();
    // Events of an earlier object of the same name are not this one's. Node events carry the
    // node's name as uid in some writers, so nodes are not checked.
    found.retain(|event| {
        let uid = text(event, "/involvedObject/uid");
        kind.kind == "Node" || uid.is_empty() || uid == object.uid
    });
    super::events::sort(&mut found);
    if found.is_empty() {
        w.field("Events", "<none>");
        return Ok(());
    }
    w.line("Events:");
    let mut rows = vec![strings(&["Type", "Reason", "Age", "From", "Message"])];
    rows.push(strings(&["----", "------", "----", "----", "-------"]));
    for event in &found {
        let count = int(event, "/count").max(int(event, "/series/count"));
        let last = w.age(text(event, "/lastTimestamp"));
        let first = w.age(text(event, "/firstTimestamp"));
        let age = if count > 1 { format!("{last} (x{count} over {first})") } else { last };
        let component = text(event, "/source/component");
        let from =
            if component.is_empty() { text(event, "/reportingComponent") } else { component };
        rows.push(strings(&[
            text(event, "/type"),
            text(event, "/reason"),
            &age,
            from,
            text(event, "/message").trim(),
        ]));
    }
    w.table(&rows);
    Ok(())
}

fn conditions(value: &Value, w: &mut Writer) {
    let conditions = list(value, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    w.line("Conditions:");
    let mut rows = vec![strings(&["Type", "Status", "Reason", "Message"])];
    for condition in conditions {
        rows.push(strings(&[
            text(condition, "/type"),
            text(condition, "/status"),
            text(condition, "/reason"),
            text(condition, "/message"),
        ]));
    }
    w.table(&rows);
}

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}
