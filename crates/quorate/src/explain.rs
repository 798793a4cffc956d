//! `Scheduler.Explain`: the scheduler's explanations as messages of the API.

use std::sync::Arc;

use quorate_api::Explain;
use quorate_objects::kinds;
use quorate_proto::v1;
use quorate_registry::RegistryError;
use quorate_scheduler::preempt::Preemption;
use quorate_scheduler::score::NodeScore;
use quorate_scheduler::trace::{ExplainError, Explanation, Happening};
use quorate_scheduler::{Decision, Explainer, Outcome};

/// How the API asks the scheduler of this master.
pub fn explain(explainer: Explainer) -> Explain {
    Arc::new(move |namespace, name| {
        let explainer = explainer.clone();
        Box::pin(async move {
            explainer.explain(&namespace, &name).await.map(message).map_err(|error| match error {
                ExplainError::NotFound(name) => {
                    RegistryError::NotFound { resource: kinds::POD.resource(), name }
                }
                // It begins or has just ended: the next try finds it, or another leader.
                ExplainError::NotRunning => {
                    RegistryError::Unavailable { reason: error.to_string(), leader: None }
                }
                ExplainError::NotOurs { .. } => RegistryError::BadRequest(error.to_string()),
            })
        })
    })
}

fn message(explanation: Explanation) -> v1::ExplainResponse {
    let happening = |h: Happening| v1::SchedulingHappening {
        first_ms: h.first.as_millisecond(),
        last_ms: h.last.as_millisecond(),
        count: h.count,
        what: h.what,
    };
    v1::ExplainResponse {
        namespace: explanation.key.namespace,
        name: explanation.key.name,
        uid: explanation.key.uid,
        term: explanation.term,
        decided_at_ms: explanation.decided_at.map(|at| at.as_millisecond()),
        decision: Some(decision(explanation.decision)),
        history: explanation.history.into_iter().map(happening).collect(),
    }
}

fn decision(decision: Decision) -> v1::SchedulingDecision {
    let (node, message) = match decision.outcome {
        Outcome::Node(node) => (node, String::new()),
        Outcome::Unschedulable(why) => (String::new(), why.to_string()),
    };
    let trace = decision.trace;
    let removed = trace.removed.into_iter().map(|(filter, removed)| v1::SchedulingFilter {
        filter: filter.to_string(),
        nodes: number(removed.nodes),
        examples: removed.examples.iter().map(ToString::to_string).collect(),
    });
    v1::SchedulingDecision {
        node,
        message,
        nodes: number(trace.nodes),
        examined: number(trace.examined),
        feasible: number(trace.feasible),
        removed: removed.collect(),
        scores: trace.scores.iter().map(score).collect(),
        preemption: decision.preemption.map(preemption),
    }
}

fn score(score: &NodeScore) -> v1::SchedulingScore {
    let part = |(name, points): (&str, i64)| v1::SchedulingScorePart { name: name.into(), points };
    v1::SchedulingScore {
        node: score.node.to_string(),
        total: score.total(),
        parts: score.parts().into_iter().map(part).collect(),
    }
}

fn preemption(preemption: Preemption) -> v1::SchedulingPreemption {
    let victims = preemption.victims.iter();
    v1::SchedulingPreemption {
        node: preemption.node,
        victims: victims.map(|v| format!("{}/{}", v.namespace, v.name)).collect(),
        violations: number(preemption.violations),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
