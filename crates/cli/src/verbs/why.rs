//! `quorate why`

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use quorate_client::{Client, ListOptions};
use quorate_proto::v1;
use serde_json::{Value, json};

use crate::context::{Context, list_all};
use crate::error::{CliError, Result};
use crate::json::{list, text};
use crate::output::{Format, print};
use crate::resource;
use crate::verbs::describe::Writer;
use crate::verbs::events::sort;

/// Why a pod runs where it runs, or why nowhere
#[derive(Args, Debug)]
pub struct Why {
    /// pod/NAME
    #[arg(value_name = "pod/NAME")]
    pod: String,
    /// json or yaml
    #[arg(long, short)]
    output: Option<Format>,
}

/// All that is known.
struct Known {
    namespace: String,
    name: String,
    /// `None`: it does not exist (any more).
    pod: Option<Value>,
    /// `None`: the scheduler does not know it.
    told: Option<v1::ExplainResponse>,
    events: Vec<Value>,
}

impl Why {
    pub async fn run(self, context: &Context) -> Result<ExitCode> {
        let name = match self.pod.split_once('/') {
            None => self.pod.as_str(),
            Some((kind, name)) if resource::by_name(kind)?.kind == "Pod" => name,
            Some(_) => {
                let text = "only pods are scheduled; say which: quorate why pod/NAME";
                return Err(CliError::local(text));
            }
        };
        let known = Known::ask(&context.client()?, context.namespace(), name).await?;
        match &self.output {
            Some(Format::Json) => print::text(&print::to_json(&known.json())?)?,
            Some(Format::Yaml) => print::text(&print::to_yaml(&known.json())?)?,
            Some(Format::JsonPath(path)) => print::text(&path.render(&known.json()))?,
            Some(_) => return Err(CliError::local("-o may be json, yaml or jsonpath=TEMPLATE")),
            None => print::text(&known.words(quorate_objects::time::timestamp()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Known {
    async fn ask(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let told = client.explain(namespace, name).await.map_err(CliError::from);
        let told = match told {
            // Another scheduler's pod has a status and events all the same.
            Err(error) if error.is("BadRequest") => None,
            told => unless_absent(told)?,
        };
        let pod = client.get(resource::by_name("pods")?, namespace, name).await;
        let pod = unless_absent(pod.map(|pod| pod.value).map_err(CliError::from))?;
        let options = ListOptions {
            namespace: namespace.to_owned(),
            fields: format!("involvedObject.kind=Pod,involvedObject.name={name}"),
            ..ListOptions::default()
        };
        let events = list_all(client, resource::by_name("events")?, options).await?.1;
        let mut events: Vec<Value> = events.into_iter().map(|event| event.value).collect();
        sort(&mut events);
        if told.is_none() && pod.is_none() && events.is_empty() {
            let message = format!("pods \"{name}\" not found");
            return Err(CliError::Server { reason: "NotFound".into(), message });
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), pod, told, events })
    }

    fn decision(&self) -> Option<&v1::SchedulingDecision> {
        self.told.as_ref()?.decision.as_ref()
    }

    fn status(&self) -> &str {
        match &self.pod {
            None => "gone",
            Some(pod) if !text(pod, "/metadata/deletionTimestamp").is_empty() => "Terminating",
            Some(pod) => {
                Some(text(pod, "/status/phase")).filter(|t| !t.is_empty()).unwrap_or("Pending")
            }
        }
    }

    fn node(&self) -> &str {
        self.pod.as_ref().map_or("", |pod| text(pod, "/spec/nodeName"))
    }

    /// The conditions that tell why a pod has to go or cannot begin.
    fn conditions(&self) -> impl Iterator<Item = &Value> {
        let all = self.pod.as_ref().map_or(&[][..], |pod| list(pod, "/status/conditions"));
        all.iter().filter(|condition| {
            let told = ["PodScheduled", "DisruptionTarget"].contains(&text(condition, "/type"));
            told && !text(condition, "/reason").is_empty()
        })
    }

    fn json(&self) -> Value {
        let decision = self.decision().map(|d| {
            let filter = |f: &v1::SchedulingFilter| {
                json!({"filter": f.filter, "nodes": f.nodes, "examples": f.examples})
            };
            let score = |s: &v1::SchedulingScore| {
                let parts: serde_json::Map<String, Value> =
                    s.parts.iter().map(|p| (p.name.clone(), p.points.into())).collect();
                json!({"node": s.node, "total": s.total, "parts": parts})
            };
            let preemption = d.preemption.as_ref().map(|p| {
                json!({"node": p.node, "victims": p.victims, "budgetViolations": p.violations})
            });
            json!({
                "node": d.node, "message": d.message, "nodes": d.nodes, "examined": d.examined,
                "feasible": d.feasible, "removed": d.removed.iter().map(filter).collect::<Vec<_>>(),
                "scores": d.scores.iter().map(score).collect::<Vec<_>>(),
                "preemption": preemption,
            })
        });
        let history = self.told.iter().flat_map(|told| &told.history).map(|h| {
            json!({"first": time(h.first_ms), "last": time(h.last_ms), "count": h.count,
                   "what": h.what})
        });
        let decided = self.told.as_ref().and_then(|told| told.decided_at_ms);
        json!({
            "namespace": self.namespace, "name": self.name, "status": self.status(),
            "node": self.node(), "term": self.told.as_ref().map(|told| told.term),
            "recorded": decided.is_some(), "decidedAt": decided.map(time), "decision": decision,
            "conditions": self.conditions().collect::<Vec<_>>(),
            "history": history.collect::<Vec<_>>(), "events": self.events,
        })
    }

    fn words(&self, now: Timestamp) -> String {
        let mut w = Writer::new(now);
        w.field("Pod", &format!("{}/{}", self.namespace, self.name));
        w.field("Status", self.status());
        w.field("Node", self.node());
        for condition in self.conditions() {
            w.field(
                text(condition, "/type"),
                &format!("{}: {}", text(condition, "/reason"), text(condition, "/message")),
            );
        }
        if let (Some(told), Some(decision)) = (&self.told, self.decision()) {
            let when = match told.decided_at_ms {
                Some(at) => format!("{} ago, in term {}", ago(at, now), told.term),
                None => "just now, as if it had to be placed again: this leader has no record of \
                         the decision"
                    .to_owned(),
            };
            w.field("Decided", &when);
            show_decision(decision, &mut w);
            show_history(&told.history, now, &mut w);
        } else {
            w.field("Decided", "not by the scheduler of this cluster, or too long ago");
        }
        let mut rows = vec![["LAST", "COUNT", "REASON", "MESSAGE"].map(str::to_owned).to_vec()];
        rows.extend(self.events.iter().map(|event| {
            let last = text(event, "/lastTimestamp").parse::<Timestamp>();
            let count = event["count"].as_i64().unwrap_or(1);
            vec![
                last.map_or_else(|_| "?".to_owned(), |at| ago(at.as_millisecond(), now)),
                count.to_string(),
                text(event, "/reason").to_owned(),
                text(event, "/message").to_owned(),
            ]
        }));
        if rows.len() > 1 {
            w.line("Events:");
            w.table(&rows);
        }
        w.finish()
    }
}

fn show_decision(decision: &v1::SchedulingDecision, w: &mut Writer) {
    if decision.node.is_empty() {
        w.field("Nowhere because", &decision.message);
    } else {
        w.field("Chosen", &decision.node);
    }
    w.field(
        "Nodes",
        &format!(
            "{} in the cluster, {} looked at, {} would do",
            decision.nodes, decision.examined, decision.feasible
        ),
    );
    if let Some(preemption) = &decision.preemption {
        let who = if preemption.victims.is_empty() {
            "pods that leave already".to_owned()
        } else {
            preemption.victims.join(", ")
        };
        w.field("Makes room", &format!("on {}, where these have to leave: {who}", preemption.node));
        if preemption.violations > 0 {
            let count = preemption.violations;
            w.field("Budgets", &format!("{count} of these leave although a budget forbids it"));
        }
    }
    if !decision.removed.is_empty() {
        w.line("Removed by filters:");
        let mut rows = vec![["FILTER", "NODES", "FOR EXAMPLE"].map(str::to_owned).to_vec()];
        rows.extend(decision.removed.iter().map(|removed| {
            vec![removed.filter.clone(), removed.nodes.to_string(), removed.examples.join(", ")]
        }));
        w.table(&rows);
    }
    if !decision.scores.is_empty() {
        w.line("Scores, best first:");
        w.table(&score_rows(&decision.scores));
    }
}

/// A column for each part that says anything.
fn score_rows(scores: &[v1::SchedulingScore]) -> Vec<Vec<String>> {
    let parts = scores.first().map_or(&[][..], |score| &score.parts);
    let telling = |at: &usize| {
        scores.iter().any(|score| score.parts.get(*at).is_some_and(|part| part.points != 0))
    };
    let columns: Vec<usize> = (0..parts.len()).filter(telling).collect();
    let mut heading = vec!["NODE".to_owned(), "TOTAL".to_owned()];
    heading.extend(columns.iter().map(|at| parts[*at].name.clone()));
    let row = |score: &v1::SchedulingScore| {
        let mut row = vec![score.node.clone(), score.total.to_string()];
        let points = |at: &usize| score.parts.get(*at).map_or(0, |part| part.points).to_string();
        row.extend(columns.iter().map(points));
        row
    };
    std::iter::once(heading).chain(scores.iter().map(row)).collect()
}

fn show_history(history: &[v1::SchedulingHappening], now: Timestamp, w: &mut Writer) {
    if history.is_empty() {
        return;
    }
    w.line("History:");
    let mut rows = vec![["LAST", "COUNT", "WHAT"].map(str::to_owned).to_vec()];
    rows.extend(
        history.iter().map(|h| vec![ago(h.last_ms, now), h.count.to_string(), h.what.clone()]),
    );
    w.table(&rows);
}

fn unless_absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn ago(at_ms: i64, now: Timestamp) -> String {
    let since = now.as_millisecond().saturating_sub(at_ms).max(0);
    quorate_objects::time::duration(since / 1_000)
}

fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

#[cfg(test)]
#[path = "why_test.rs"]
mod tests;
