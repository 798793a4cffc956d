//! How many replicas a figure asks for: pure.
//!
//! The rules are Kubernetes': replicas follow the ratio of the present average to the target,
//! pods without a figure are assumed to be at the end of the scale that changes least.

/// A pod of the target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// What it uses: thousandths of a processor, or bytes. `None`: nobody has said so.
    pub usage: Option<i64>,
    /// What it requests, in the same unit.
    pub request: i64,
    /// Is it ready?
    pub ready: bool,
}

/// What is aimed at, per pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Percent of what is requested.
    Utilization(i32),
    /// So much, in the unit of the samples.
    Average(i64),
}

/// What a figure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub replicas: i32,
    /// The present average per pod.
    pub average: i64,
    /// The same in percent of the requests.
    pub utilization: Option<i32>,
}

/// The sum of usages over what the target allows for these pods.
fn ratio(samples: &[(i64, i64)], target: Target) -> f64 {
    let usage: i64 = samples.iter().map(|(usage, _)| usage).sum();
    let allowed = match target {
        Target::Utilization(percent) => {
            let requests: i64 = samples.iter().map(|(_, request)| request).sum();
            to_f64(requests) * f64::from(percent) / 100.0
        }
        Target::Average(value) => to_f64(value) * to_f64(count(samples)),
    };
    to_f64(usage) / allowed.max(f64::MIN_POSITIVE)
}

fn count(samples: &[(i64, i64)]) -> i64 {
    i64::try_from(samples.len()).unwrap_or(i64::MAX)
}

fn to_f64(value: i64) -> f64 {
    value as f64
}

/// Rounded up, within `i32`.
fn ceil(value: f64) -> i32 {
    value.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

/// Works out how many replicas there should be.
///
/// # Errors
/// Why nothing can be said.
pub(super) fn propose(
    current: i32,
    samples: &[Sample],
    target: Target,
    tolerance: f64,
) -> Result<Proposal, String> {
    let measured: Vec<(i64, i64)> = samples
        .iter()
        .filter(|sample| sample.ready)
        .filter_map(|sample| Some((sample.usage?, sample.request)))
        .collect();
    if measured.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    if matches!(target, Target::Utilization(_)) && samples.iter().any(|one| one.request <= 0) {
        return Err("missing request in a container of the targeted pods".into());
    }
    let usage: i64 = measured.iter().map(|(usage, _)| usage).sum();
    let requests: i64 = measured.iter().map(|(_, request)| request).sum();
    let utilization = matches!(target, Target::Utilization(_))
        .then(|| i32::try_from(usage.saturating_mul(100) / requests.max(1)).unwrap_or(i32::MAX));
    let average = usage / count(&measured).max(1);
    let proposal = |replicas| Ok(Proposal { replicas, average, utilization });
    let close = |ratio: f64| (ratio - 1.0).abs() <= tolerance;
    let first = ratio(&measured, target);
    let (mut unready, mut missing) = (Vec::new(), Vec::new());
    for sample in samples {
        match (sample.ready, sample.usage) {
            (true, Some(_)) => {}
            (true, None) => missing.push(sample.request),
            (false, _) => unready.push(sample.request),
        }
    }
    let young = !unready.is_empty() && first > 1.0;
    if !young && missing.is_empty() {
        let replicas = if close(first) { current } else { ceil(first * to_f64(count(&measured))) };
        return proposal(replicas);
    }
    let mut all = measured;
    if first < 1.0 {
        // To scale down for want of figures would be rash: they use all that they may.
        all.extend(missing.iter().map(|request| match target {
            Target::Utilization(percent) => {
                (request.saturating_mul(i64::from(percent.max(100))) / 100, *request)
            }
            Target::Average(value) => (value, *request),
        }));
    } else if first > 1.0 {
        all.extend(missing.iter().map(|request| (0, *request)));
    }
    if young {
        all.extend(unready.iter().map(|request| (0, *request)));
    }
    let second = ratio(&all, target);
    let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
    if close(second) || turned {
        return proposal(current);
    }
    let replicas = ceil(second * to_f64(count(&all)));
    let against = (second < 1.0 && replicas > current) || (second > 1.0 && replicas < current);
    proposal(if against { current } else { replicas })
}
