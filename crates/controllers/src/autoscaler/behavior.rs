//! How fast replicas may follow a proposal: stabilisation windows and policies. Pure.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec,
};

/// Kubernetes' default window in which the highest proposal counts when scaling down, in seconds.
const DOWN_WINDOW: i32 = 300;
/// The longest window or period there is, in seconds.
const LONGEST: i64 = 3600;

/// What an autoscaler remembers. It begins anew with a new leader: the first proposal then is
/// what is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Second and replicas of each proposal.
    proposals: Vec<(i64, i32)>,
    /// Second and difference of each change.
    changes: Vec<(i64, i32)>,
}

/// The replicas that there shall be, and why they are not those of the proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub replicas: i32,
    /// Reason and message, when the proposal was limited.
    pub why: Option<(&'static str, String)>,
}

fn default_rules(policies: &[(&str, i32)]) -> HPAScalingRules {
    let policy = |(type_, value): &(&str, i32)| HPAScalingPolicy {
        type_: (*type_).to_owned(),
        value: *value,
        period_seconds: 15,
    };
    HPAScalingRules {
        policies: Some(policies.iter().map(policy).collect()),
        ..HPAScalingRules::default()
    }
}

fn rules(spec: &HorizontalPodAutoscalerSpec) -> (HPAScalingRules, HPAScalingRules) {
    let behavior = spec.behavior.clone().unwrap_or_default();
    let up = behavior.scale_up.unwrap_or_else(|| default_rules(&[("Pods", 4), ("Percent", 100)]));
    let down = behavior.scale_down.unwrap_or_else(|| default_rules(&[("Percent", 100)]));
    (up, down)
}

impl Memory {
    /// Notes a change of the replicas.
    pub fn changed(&mut self, now: i64, by: i32) {
        self.changes.push((now, by));
        self.changes.retain(|(at, _)| now - at <= LONGEST);
    }

    /// Notes a proposal, and says what may follow from it.
    pub fn limit(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        current: i32,
        proposed: i32,
        now: i64,
    ) -> Limited {
        if self.proposals.is_empty() {
            self.proposals.push((now, current));
        }
        self.proposals.push((now, proposed));
        self.proposals.retain(|(at, _)| now - at <= LONGEST);
        let (up, down) = rules(spec);
        let stable = self.stabilised(&up, &down, current, now);
        let mut why = None;
        if stable != proposed {
            let (reason, what) = if stable > proposed {
                ("ScaleDownStabilized", "recent recommendations were higher than current one")
            } else {
                ("ScaleUpStabilized", "recent recommendations were lower than current one")
            };
            why = Some((reason, format!("{what}, applying the one of the stabilization window")));
        }
        let bounded = if stable > current {
            stable.min(self.highest(&up, current, now))
        } else if stable < current {
            stable.max(self.lowest(&down, current, now))
        } else {
            stable
        };
        if bounded != stable {
            let text = "the desired replica count is changing faster than the policies allow";
            let reason = if stable > current { "ScaleUpLimit" } else { "ScaleDownLimit" };
            why = Some((reason, text.to_owned()));
        }
        let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let replicas = bounded.clamp(min.min(max), max);
        if replicas < bounded {
            let text = "the desired replica count is more than the maximum replica count";
            why = Some(("TooManyReplicas", text.to_owned()));
        } else if replicas > bounded {
            let text = "the desired replica count is less than the minimum replica count";
            why = Some(("TooFewReplicas", text.to_owned()));
        }
        Limited { replicas, why }
    }

    /// Within its window, up follows the lowest proposal and down the highest.
    fn stabilised(
        &self,
        up: &HPAScalingRules,
        down: &HPAScalingRules,
        current: i32,
        now: i64,
    ) -> i32 {
        let since = |rules: &HPAScalingRules, default: i32| {
            now - i64::from(rules.stabilization_window_seconds.unwrap_or(default))
        };
        let last = self.proposals.last().map_or(current, |(_, proposed)| *proposed);
        let within = |start: i64| {
            self.proposals.iter().filter(move |(at, _)| *at > start).map(|(_, proposed)| *proposed)
        };
        let low = within(since(up, 0)).fold(last, i32::min);
        let high = within(since(down, DOWN_WINDOW)).fold(last, i32::max);
        current.max(low).min(high)
    }

    /// Replicas at the begin of a period.
    fn at_start(&self, current: i32, period: i32, now: i64) -> i32 {
        let start = now - i64::from(period);
        let within = self.changes.iter().filter(|(at, _)| *at > start).map(|(_, by)| *by);
        current - within.sum::<i32>()
    }

    fn highest(&self, rules: &HPAScalingRules, current: i32, now: i64) -> i32 {
        let bound = |policy: &HPAScalingPolicy| {
            let start = self.at_start(current, policy.period_seconds, now);
            if policy.type_ == "Pods" {
                return start.saturating_add(policy.value);
            }
            let more = i64::from(start) * i64::from(policy.value);
            i32::try_from(i64::from(start) + (more + 99) / 100).unwrap_or(i32::MAX)
        };
        let bounds = rules.policies.iter().flatten().map(bound);
        let chosen = match rules.select_policy.as_deref() {
            Some("Disabled") => Some(current),
            Some("Min") => bounds.min(),
            _ => bounds.max(),
        };
        chosen.unwrap_or(i32::MAX).max(current)
    }

    fn lowest(&self, rules: &HPAScalingRules, current: i32, now: i64) -> i32 {
        let bound = |policy: &HPAScalingPolicy| {
            let start = self.at_start(current, policy.period_seconds, now);
            if policy.type_ == "Pods" {
                return start.saturating_sub(policy.value);
            }
            // Rounded up: a tenth of five would else never be taken away.
            let less = (i64::from(start) * i64::from(policy.value) + 99) / 100;
            i32::try_from(i64::from(start) - less).unwrap_or_default()
        };
        let bounds = rules.policies.iter().flatten().map(bound);
        let chosen = match rules.select_policy.as_deref() {
            Some("Disabled") => Some(current),
            Some("Min") => bounds.max(),
            _ => bounds.min(),
        };
        chosen.unwrap_or_default().clamp(0, current)
    }
}
