//! `quorate get`

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use quorate_client::{Client, Event, WatchOptions};
use quorate_objects::Kind;
use serde_json::{Value, json};

use crate::context::{Context, Selectors, list_all};
use crate::error::{CliError, Result};
use crate::json;
use crate::output::table::{self, Growing};
use crate::output::{Format, print};
use crate::resource::{self, Target, reference};

/// Shows objects.
#[derive(Args, Debug)]
pub struct Get {
    /// pods · pods,svc · deploy/web · pod NAME … · all
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME…]")]
    what: Vec<String>,
    /// wide, json, yaml, name, jsonpath=…, custom-columns=…
    #[arg(long, short)]
    output: Option<Format>,
    /// Go on with changes
    #[arg(long, short)]
    watch: bool,
    /// Changes only, not what is there
    #[arg(long)]
    watch_only: bool,
    #[command(flatten)]
    selectors: Selectors,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Labels as last column
    #[arg(long)]
    show_labels: bool,
    /// No headings
    #[arg(long)]
    no_headers: bool,
    /// No error when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Order by a field, for instance .metadata.creationTimestamp
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<String>,
    /// Take what the answering master has, even without a majority of masters
    #[arg(long)]
    stale: bool,
}

impl Get {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        self.selectors.check()?;
        let targets = resource::parse(&self.what)?;
        let named = targets.iter().any(|target| target.name.is_some());
        if named && (self.selectors.any() || self.all_namespaces) {
            return Err(CliError::local(
                "a resource cannot be retrieved by name with a selector or across all namespaces",
            ));
        }
        let client = context.client()?;
        if self.watch || self.watch_only {
            return self.watch(context, &client, &targets).await;
        }
        let mut groups: Vec<(&'static Kind, Vec<Value>)> = Vec::new();
        let mut failed = false;
        for target in &targets {
            let items = match self.fetch(context, &client, *target).await {
                Ok(items) => items,
                Err(error) if error.is_not_found() && self.ignore_not_found => continue,
                // One that is missing does not hide the others.
                Err(error @ CliError::Server { .. }) if targets.len() > 1 => {
                    eprintln!("{error}");
                    failed = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match groups.last_mut() {
                Some((kind, group)) if *kind == target.kind => group.extend(items),
                _ => groups.push((target.kind, items)),
            }
        }
        let single = named && targets.len() == 1;
        self.print(context, groups, single, failed)?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn namespace<'a>(&self, context: &'a Context, kind: &Kind) -> &'a str {
        if self.all_namespaces { "" } else { context.namespace_for(kind) }
    }

    async fn fetch(
        &self,
        context: &Context,
        client: &Client,
        target: Target<'_>,
    ) -> Result<Vec<Value>> {
        let namespace = self.namespace(context, target.kind);
        let Some(name) = target.name else {
            let mut options = self.selectors.options(namespace);
            options.stale = self.stale;
            let (_, items) = list_all(client, target.kind, options).await?;
            let mut items: Vec<Value> = items.into_iter().map(|object| object.value).collect();
            self.sort(&mut items)?;
            return Ok(items);
        };
        Ok(vec![client.get_with(target.kind, namespace, name, self.stale).await?.value])
    }

    fn sort(&self, items: &mut [Value]) -> Result<()> {
        let Some(path) = &self.sort_by else { return Ok(()) };
        let path = format!("{{{}}}", path.trim_matches(['{', '}']));
        let path: quorate_objects::jsonpath::JsonPath = path.parse().map_err(CliError::Local)?;
        // Numbers by value, everything else by its text (RFC 3339 times sort as text).
        items.sort_by_cached_key(|item| {
            let text = path.render(item);
            (text.parse::<i64>().unwrap_or(i64::MAX), text)
        });
        Ok(())
    }

    fn print(
        &self,
        context: &Context,
        groups: Vec<(&'static Kind, Vec<Value>)>,
        single: bool,
        failed: bool,
    ) -> Result<()> {
        match &self.output {
            None | Some(Format::Wide) => return self.print_tables(context, &groups, failed),
            Some(Format::Name) => {
                for (kind, items) in &groups {
                    for item in items {
                        print::line(&reference(kind, json::name(item)))?;
                    }
                }
                return Ok(());
            }
            Some(Format::Columns(columns)) => {
                let items = groups.iter().flat_map(|(_, items)| items);
                let mut rows: Vec<_> = items.map(|item| columns.row(item)).collect();
                if !self.no_headers {
                    rows.insert(0, columns.headings());
                }
                return print::text(&table::render(&rows));
            }
            Some(_) => {}
        }
        let mut items: Vec<Value> = groups.into_iter().flat_map(|(_, items)| items).collect();
        let whole = match items.pop() {
            Some(item) if single && items.is_empty() => item,
            None if single => return Ok(()),
            last => {
                items.extend(last);
                json!({
                    "apiVersion": "v1",
                    "kind": "List",
                    "metadata": {"resourceVersion": ""},
                    "items": items,
                })
            }
        };
        match &self.output {
            Some(Format::Yaml) => print::text(&print::to_yaml(&whole)?),
            Some(Format::JsonPath(path)) => print::text(&path.render(&whole)),
            _ => print::text(&print::to_json(&whole)?),
        }
    }

    fn print_tables(
        &self,
        context: &Context,
        groups: &[(&'static Kind, Vec<Value>)],
        failed: bool,
    ) -> Result<()> {
        let filled: Vec<_> = groups.iter().filter(|(_, items)| !items.is_empty()).collect();
        if filled.is_empty() {
            let namespaced = groups.iter().any(|(kind, _)| kind.namespaced);
            if failed || self.ignore_not_found {
                return Ok(());
            }
            if namespaced && !self.all_namespaces {
                eprintln!("No resources found in {} namespace.", context.namespace());
            } else {
                eprintln!("No resources found");
            }
            return Ok(());
        }
        let now = quorate_objects::time::timestamp();
        for (at, (kind, items)) in filled.iter().enumerate() {
            let view = self.view(kind, groups.len() > 1);
            let mut rows: Vec<_> = items.iter().map(|item| view.row(item, now)).collect();
            if !self.no_headers {
                rows.insert(0, view.headings());
            }
            if at > 0 {
                print::line("")?;
            }
            print::text(&table::render(&rows))?;
        }
        Ok(())
    }

    fn view(&self, kind: &'static Kind, prefixed: bool) -> View {
        View {
            kind,
            wide: self.output == Some(Format::Wide),
            namespace: self.all_namespaces && kind.namespaced,
            labels: self.show_labels,
            prefixed,
        }
    }

    async fn watch(
        &self,
        context: &Context,
        client: &Client,
        targets: &[Target<'_>],
    ) -> Result<ExitCode> {
        let [target] = targets else {
            return Err(CliError::local(
                "you may only specify a single resource type with --watch",
            ));
        };
        let kind = target.kind;
        let mut list = self.selectors.options(self.namespace(context, kind));
        if let Some(name) = target.name {
            list.fields = format!("metadata.name={name}");
            // A name that does not exist is an error at once, not an endless wait.
            client.get_with(kind, &list.namespace, name, self.stale).await?;
        }
        let view = self.view(kind, false);
        let mut printer = Stream { table: Growing::default(), headings: !self.no_headers };
        let (revision, items) = list_all(client, kind, list.clone()).await?;
        if !self.watch_only {
            let items: Vec<Value> = items.into_iter().map(|object| object.value).collect();
            printer.show(&view, self.output.as_ref(), &items)?;
        }
        let mut watch = client.watch(
            kind,
            WatchOptions {
                namespace: list.namespace,
                labels: list.labels,
                fields: list.fields,
                revision,
                ..WatchOptions::default()
            },
        );
        loop {
            match watch.next().await? {
                Event::Added(object) | Event::Modified(object) | Event::Deleted(object) => {
                    printer.show(&view, self.output.as_ref(), &[object.value])?;
                }
                Event::Bookmark(_) => {}
            }
        }
    }
}

/// Prints objects as they change.
struct Stream {
    table: Growing,
    headings: bool,
}

impl Stream {
    fn show(&mut self, view: &View, format: Option<&Format>, items: &[Value]) -> Result<()> {
        let now = quorate_objects::time::timestamp();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for item in items {
            match format {
                None | Some(Format::Wide) => rows.push(view.row(item, now)),
                Some(Format::Columns(columns)) => rows.push(columns.row(item)),
                Some(Format::Json) => print::text(&print::to_json(item)?)?,
                Some(Format::Yaml) => print::text(&format!("---\n{}", print::to_yaml(item)?))?,
                Some(Format::Name) => print::line(&reference(view.kind, json::name(item)))?,
                Some(Format::JsonPath(path)) => print::line(&path.render(item))?,
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.headings) {
            rows.insert(
                0,
                match format {
                    Some(Format::Columns(columns)) => columns.headings(),
                    _ => view.headings(),
                },
            );
        }
        print::text(&self.table.render(&rows))
    }
}

/// Which columns of a kind are shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The kind.
    pub kind: &'static Kind,
    /// The columns of `-o wide` too.
    pub wide: bool,
    /// The namespace in front.
    pub namespace: bool,
    /// The labels at the end.
    pub labels: bool,
    /// `pod/web` instead of `web`: several kinds are shown.
    pub prefixed: bool,
}

impl View {
    /// The heading row.
    pub fn headings(&self) -> Vec<String> {
        let mut row: Vec<String> = Vec::new();
        if self.namespace {
            row.push("NAMESPACE".into());
        }
        row.extend(self.shown().map(|(_, name)| name.to_owned()));
        if self.labels {
            row.push("LABELS".into());
        }
        row
    }

    /// An object's row.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<String> {
        let mut row = Vec::new();
        if self.namespace {
            row.push(json::namespace(object).to_owned());
        }
        let cells = self.kind.row(object, now);
        for (at, name) in self.shown() {
            let cell = cells.get(at).cloned().unwrap_or_default();
            let prefix = self.prefixed && name == "NAME";
            row.push(if prefix { reference(self.kind, &cell) } else { cell });
        }
        if self.labels {
            let labels = json::pairs(object, "/metadata/labels", "=");
            row.push(if labels.is_empty() { "<none>".into() } else { labels.join(",") });
        }
        row
    }

    fn shown(&self) -> impl Iterator<Item = (usize, &'static str)> {
        let wide = self.wide;
        let columns = self.kind.columns.iter().enumerate();
        columns.filter(move |(_, c)| wide || !c.wide).map(|(at, c)| (at, c.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_view() {
        let kind = resource::by_name("pods").unwrap();
        let view = View { kind, wide: false, namespace: true, labels: true, prefixed: true };
        assert_eq!(
            view.headings(),
            ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "LABELS"]
        );
        let wide = View { wide: true, namespace: false, labels: false, ..view };
        assert!(wide.headings().contains(&"NODE".to_owned()));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}]},
            "metadata": {"name": "a", "namespace": "x", "labels": {"b": "c"}},
        });
        let row = view.row(&pod, quorate_objects::time::timestamp());
        assert_eq!(row.len(), view.headings().len());
        assert_eq!(row.first().map(String::as_str), Some("x"));
        assert_eq!(row.last().map(String::as_str), Some("b=c"));
        assert_eq!(row[1], "pod/a");
    }
}
