//! `quorate events`

use std::process::ExitCode;

use clap::Args;
use quorate_client::{Event, WatchOptions};
use serde_json::{Value, json};

use crate::context::{Context, list_all};
use crate::error::{CliError, Result};
use crate::json;
use crate::output::table::{self, Growing};
use crate::output::{Format, print};
use crate::resource;
use crate::verbs::get::View;

/// Shows events, the oldest first.
#[derive(Args, Debug)]
pub struct Events {
    /// Go on with new ones
    #[arg(long, short)]
    watch: bool,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Of one object only: TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    object: Option<String>,
    /// Normal, Warning, or both
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// wide, json, yaml, …
    #[arg(long, short)]
    output: Option<Format>,
    /// No headings
    #[arg(long)]
    no_headers: bool,
}

impl Events {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let client = context.client()?;
        let kind = resource::by_name("events")?;
        let namespace = if self.all_namespaces { "" } else { context.namespace() };
        let options = quorate_client::ListOptions {
            namespace: namespace.to_owned(),
            fields: self.fields()?,
            ..Default::default()
        };
        let (revision, found) = list_all(&client, kind, options.clone()).await?;
        let mut found: Vec<Value> = found.into_iter().map(|object| object.value).collect();
        found.retain(|event| self.wanted(event));
        sort(&mut found);
        let view = View {
            kind,
            wide: self.output == Some(Format::Wide),
            namespace: self.all_namespaces,
            labels: false,
            prefixed: false,
        };
        if !self.watch {
            self.print(&view, &found, namespace)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Growing::default();
        let mut first = !self.no_headers;
        self.stream(&view, &mut table, &mut first, &found)?;
        let watch = WatchOptions {
            namespace: options.namespace,
            fields: options.fields,
            revision,
            ..WatchOptions::default()
        };
        let mut watch = client.watch(kind, watch);
        loop {
            if let Event::Added(object) | Event::Modified(object) = watch.next().await?
                && self.wanted(&object.value)
            {
                self.stream(&view, &mut table, &mut first, &[object.value])?;
            }
        }
    }

    fn fields(&self) -> Result<String> {
        let Some(object) = &self.object else { return Ok(String::new()) };
        let (kind, name) = object.split_once('/').ok_or_else(|| {
            CliError::local(format!("--for must be in resource/name form, not {object:?}"))
        })?;
        let kind = resource::by_name(kind)?.kind;
        Ok(format!("involvedObject.kind={kind},involvedObject.name={name}"))
    }

    fn wanted(&self, event: &Value) -> bool {
        let own = json::text(event, "/type");
        self.types.is_empty() || self.types.iter().any(|t| t.eq_ignore_ascii_case(own))
    }

    fn print(&self, view: &View, found: &[Value], namespace: &str) -> Result<()> {
        let list = || json!({"apiVersion": "v1", "kind": "List", "items": found});
        match &self.output {
            Some(Format::Json) => print::text(&print::to_json(&list())?),
            Some(Format::Yaml) => print::text(&print::to_yaml(&list())?),
            Some(Format::JsonPath(path)) => print::text(&path.render(&list())),
            _ if found.is_empty() => {
                let place = if namespace.is_empty() {
                    String::new()
                } else {
                    format!(" in {namespace} namespace")
                };
                eprintln!("No events found{place}.");
                Ok(())
            }
            format => {
                let mut rows: Vec<_> =
                    found.iter().map(|e| row(view, format.as_ref(), e)).collect();
                if !self.no_headers {
                    rows.insert(0, headings(view, format.as_ref()));
                }
                print::text(&table::render(&rows))
            }
        }
    }

    fn stream(
        &self,
        view: &View,
        table: &mut Growing,
        first: &mut bool,
        events: &[Value],
    ) -> Result<()> {
        let format = self.output.as_ref();
        if matches!(format, Some(Format::Json | Format::Yaml | Format::JsonPath(_))) {
            return events.iter().try_for_each(|event| match format {
                Some(Format::Json) => print::text(&print::to_json(event)?),
                Some(Format::JsonPath(path)) => print::line(&path.render(event)),
                _ => print::text(&format!("---\n{}", print::to_yaml(event)?)),
            });
        }
        let mut rows: Vec<_> = events.iter().map(|event| row(view, format, event)).collect();
        if !rows.is_empty() && std::mem::take(first) {
            rows.insert(0, headings(view, format));
        }
        print::text(&table.render(&rows))
    }
}

fn headings(view: &View, format: Option<&Format>) -> Vec<String> {
    match format {
        Some(Format::Columns(columns)) => columns.headings(),
        Some(Format::Name) => vec!["NAME".into()],
        _ => view.headings(),
    }
}

fn row(view: &View, format: Option<&Format>, event: &Value) -> Vec<String> {
    match format {
        Some(Format::Columns(columns)) => columns.row(event),
        Some(Format::Name) => vec![resource::reference(view.kind, json::name(event))],
        _ => view.row(event, quorate_objects::time::timestamp()),
    }
}

/// The oldest first, by when they were seen last.
pub fn sort(events: &mut [Value]) {
    events.sort_by_key(last_seen);
}

/// When an event happened last; RFC 3339 in UTC, so its text sorts.
fn last_seen(event: &Value) -> String {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .map(|pointer| json::text(event, pointer))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
        .to_owned()
}
