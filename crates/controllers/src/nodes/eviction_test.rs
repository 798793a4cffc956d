#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const NOW: i64 = 1_000_000;

fn left(tolerations: serde_json::Value, taint: serde_json::Value, default: u64) -> Option<u64> {
    left_after(10, tolerations, taint, default)
}

/// So many seconds after the taint was added.
fn left_after(
    passed: i64,
    tolerations: serde_json::Value,
    taint: serde_json::Value,
    default: u64,
) -> Option<u64> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [], "tolerations": tolerations},
    }))
    .unwrap();
    let mut taint: Taint = serde_json::from_value(taint).unwrap();
    let added = Timestamp::from_second(NOW - passed).unwrap();
    taint.time_added = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(added));
    let now = Timestamp::from_second(NOW).unwrap();
    stays(&pod, &[taint], default, now).map(|left| left.as_secs())
}

#[test]
fn who_may_stay_and_how_long() {
    let lost = json!({"key": UNREACHABLE, "effect": "NoExecute"});
    let other = json!({"key": "gpu", "effect": "NoExecute"});
    let tolerates = |seconds: serde_json::Value| json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    assert_eq!(left(json!([]), lost.clone(), 0), Some(0));
    assert_eq!(left(json!([]), lost.clone(), 300), Some(290), "the time counts from the taint");
    assert_eq!(left(json!([]), other, 300), Some(0), "the default is for silent nodes only");
    assert_eq!(left(tolerates(json!(30)), lost.clone(), 0), Some(20));
    assert_eq!(left(tolerates(json!(5)), lost.clone(), 0), Some(0));
    assert_eq!(left(tolerates(json!(null)), lost, 0), None);
    assert_eq!(left(json!([]), json!({"key": "gpu", "effect": "NoSchedule"}), 0), None);
    let broken = json!({"key": NOT_READY, "effect": "NoExecute"});
    assert_eq!(left(json!([]), broken, 0), Some(290), "an engine may be restarted");
}

#[test]
fn a_clock_that_was_turned_back_keeps_no_pod_on_a_silent_node() {
    let lost = json!({"key": UNREACHABLE, "effect": "NoExecute"});
    assert_eq!(left_after(-3600, json!([]), lost.clone(), 0), Some(0));
    assert_eq!(left_after(-3600, json!([]), lost, 300), Some(300), "no longer than was asked for");
}
