#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({"metadata": {"name": "web", "generation": 3}, "spec": spec,
        "status": status}))
    .unwrap()
}

fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
    let one = |n: usize| {
        let status = if n < ready { "True" } else { "False" };
        let value = json!({"metadata": {"name": format!("p{n}")},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    };
    (0..ready + unready).map(one).collect()
}

/// Desired and allowed.
fn figures(spec: &Value, pods: &[Arc<Pod>], expected: i32) -> (i32, i32) {
    let (status, _) =
        status(&budget(spec, &json!({})), pods, expected, quorate_objects::time::timestamp());
    assert_eq!(status.observed_generation, Some(3));
    (status.desired_healthy.unwrap(), status.disruptions_allowed.unwrap())
}

#[test]
fn how_many_may_go() {
    assert_eq!(figures(&json!({"minAvailable": 2}), &pods(3, 0), 3), (2, 1));
    assert_eq!(figures(&json!({"minAvailable": 2}), &pods(2, 1), 3), (2, 0));
    assert_eq!(figures(&json!({"minAvailable": "50%"}), &pods(3, 0), 3), (2, 1));
    assert_eq!(figures(&json!({"maxUnavailable": 1}), &pods(3, 0), 3), (2, 1));
    // What the controller wants counts, not what happens to be there.
    assert_eq!(figures(&json!({"maxUnavailable": 1}), &pods(3, 0), 5), (4, 0));
    assert_eq!(figures(&json!({"maxUnavailable": "100%"}), &pods(3, 0), 3), (0, 3));
    assert_eq!(figures(&json!({"minAvailable": 0}), &[], 0), (0, 0), "nobody to evict");
}

#[test]
fn an_allowed_eviction_counts_until_it_shows() {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let old =
        json!({"disruptedPods": {"p0": "2026-01-01T00:00:30Z", "gone": "2026-01-01T00:00:30Z"}});
    let web = budget(&json!({"minAvailable": 2}), &old);
    let (fresh, wait) = status(&web, &pods(3, 0), 3, now);
    assert_eq!((fresh.current_healthy, fresh.disruptions_allowed), (Some(2), Some(0)));
    assert_eq!(fresh.disrupted_pods.unwrap().len(), 1);
    assert_eq!(wait, Some(Duration::from_secs(90)));
    let later: Timestamp = "2026-01-01T00:03:00Z".parse().unwrap();
    let (late, _) = status(&web, &pods(3, 0), 3, later);
    assert_eq!((late.disruptions_allowed, late.disrupted_pods), (Some(1), None));
}
