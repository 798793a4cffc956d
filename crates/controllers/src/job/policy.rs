//! What the failure of a pod means for its Job, and which successes are enough.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;
use crate::workload::count;

/// The consequence of a pod's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It counts towards the back-off limit.
    Count,
    /// As if it had not been.
    Ignore,
    /// The pod's index has failed.
    FailIndex,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// What the first rule that matches says.
pub(super) fn action(spec: &JobSpec, object: &Pod) -> Action {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(what) = matches(rule, object) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => {
                let meta = &object.metadata;
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                let name = meta.name.as_deref().unwrap_or_default();
                Action::FailJob(format!(
                    "{what} for pod {namespace}/{name} matching FailJob rule at index {index}"
                ))
            }
            _ => Action::Count,
        };
    }
    Action::Count
}

/// What of the pod matches the rule, in words.
fn matches(rule: &PodFailurePolicyRule, object: &Pod) -> Option<String> {
    let status = object.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let init = status.init_container_statuses.iter().flatten();
        let all = status.container_statuses.iter().flatten().chain(init);
        let named = |one: &&ContainerStatus| {
            codes.container_name.as_ref().is_none_or(|name| *name == one.name)
        };
        for one in all.filter(named) {
            let ended = one.state.as_ref().and_then(|state| state.terminated.as_ref());
            let Some(code) = ended.map(|ended| ended.exit_code).filter(|code| *code != 0) else {
                continue;
            };
            if codes.values.contains(&code) == (codes.operator == "In") {
                return Some(format!("Container {} exited with exit code {code}", one.name));
            }
        }
        return None;
    }
    for pattern in rule.on_pod_conditions.iter().flatten() {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        let mut conditions = status.conditions.iter().flatten();
        if conditions.any(|one| one.type_ == pattern.type_ && one.status == wanted) {
            return Some(format!("Condition {} is {wanted}", pattern.type_));
        }
    }
    None
}

/// Are the indexes that have succeeded enough? Says, in words, by which rule.
pub(super) fn succeeded(spec: &JobSpec, completed: &Indexes) -> Option<String> {
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    let met = rules.enumerate().find(|(_, rule)| match &rule.succeeded_indexes {
        Some(text) => {
            let named = Indexes::parse(Some(text), spec.completions.unwrap_or_default());
            let done = named.0.intersection(&completed.0).count();
            count(done) >= rule.succeeded_count.unwrap_or(count(named.0.len()))
        }
        None => rule.succeeded_count.is_some_and(|wanted| count(completed.0.len()) >= wanted),
    });
    met.map(|(number, _)| format!("Matched rules at index {number}"))
}
