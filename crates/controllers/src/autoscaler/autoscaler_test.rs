#![allow(clippy::unwrap_used)]

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerSpec;
use serde_json::json;

use super::behavior::Limited;
use super::*;

fn samples(usages: &[i64]) -> Vec<Sample> {
    usages.iter().map(|usage| Sample { usage: Some(*usage), request: 100, ready: true }).collect()
}

fn proposed(current: i32, samples: &[Sample], percent: i32) -> i32 {
    proposal::propose(current, samples, Target::Utilization(percent), TOLERANCE).unwrap().replicas
}

#[test]
fn replicas_follow_the_ratio() {
    assert_eq!(proposed(2, &samples(&[100, 100]), 50), 4);
    assert_eq!(proposed(2, &samples(&[52, 52]), 50), 2, "within the tolerance");
    assert_eq!(proposed(4, &samples(&[10, 10, 10, 10]), 50), 1);
    let average = |usages: &[i64], value| {
        proposal::propose(2, &samples(usages), Target::Average(value), TOLERANCE).unwrap()
    };
    assert_eq!(
        average(&[300, 300], 100),
        Proposal { replicas: 6, average: 300, utilization: None }
    );
    assert!(proposal::propose(2, &[], Target::Utilization(50), TOLERANCE).is_err());
    let none = [Sample { usage: Some(1), request: 0, ready: true }];
    assert!(proposal::propose(1, &none, Target::Utilization(50), TOLERANCE).is_err());
}

#[test]
fn pods_without_a_figure_change_as_little_as_may_be() {
    let missing = Sample { usage: None, request: 100, ready: true };
    let unready = Sample { usage: Some(100), request: 100, ready: false };
    let with = |usages: &[i64], more: Sample| [samples(usages), vec![more]].concat();
    // Up: the third is taken to be idle. 200 of 150 instead of 200 of 100.
    assert_eq!(proposed(3, &with(&[100, 100], missing), 50), 4);
    assert_eq!(proposed(3, &with(&[100, 100], unready), 50), 4, "what has just started, too");
    // Down: it is taken to be busy.
    assert_eq!(proposed(3, &with(&[10, 10], missing), 50), 3);
}

fn spec(behavior: Value) -> HorizontalPodAutoscalerSpec {
    serde_json::from_value(json!({"minReplicas": 1, "maxReplicas": 20, "behavior": behavior,
        "scaleTargetRef": {"kind": "Deployment", "name": "web"}}))
    .unwrap()
}

fn replicas(limited: Limited) -> i32 {
    limited.replicas
}

#[test]
fn down_waits_for_its_window() {
    let spec = spec(json!(null));
    let mut memory = Memory::default();
    assert_eq!(replicas(memory.limit(&spec, 5, 5, 1000)), 5);
    let held = memory.limit(&spec, 5, 2, 1100);
    assert_eq!((held.replicas, held.why.unwrap().0), (5, "ScaleDownStabilized"));
    assert_eq!(replicas(memory.limit(&spec, 5, 3, 1200)), 5);
    assert_eq!(replicas(memory.limit(&spec, 5, 2, 1301)), 3, "the highest of 300 s");
    assert_eq!(replicas(memory.limit(&spec, 3, 2, 1501)), 2);
}

#[test]
fn policies_bound_each_period() {
    let mut memory = Memory::default();
    let default = spec(json!(null));
    let first = memory.limit(&default, 2, 20, 1000);
    assert_eq!((first.replicas, first.why.unwrap().0), (6, "ScaleUpLimit"), "2 + 4 in 15 s");
    memory.changed(1000, 4);
    assert_eq!(replicas(memory.limit(&default, 6, 20, 1010)), 6, "the period is not over");
    assert_eq!(replicas(memory.limit(&default, 6, 20, 1016)), 12, "doubled");
    let slow = spec(json!({"scaleDown": {"stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleUp": {"selectPolicy": "Disabled"}}));
    let mut memory = Memory::default();
    assert_eq!(replicas(memory.limit(&slow, 8, 2, 1000)), 7);
    memory.changed(1000, -1);
    assert_eq!(replicas(memory.limit(&slow, 7, 2, 1030)), 7);
    assert_eq!(replicas(memory.limit(&slow, 7, 2, 1061)), 6);
    assert_eq!(replicas(memory.limit(&slow, 6, 12, 1062)), 6, "never up");
    let tenth = spec(json!({"scaleDown": {"stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}));
    assert_eq!(replicas(Memory::default().limit(&tenth, 5, 1, 1000)), 4, "half a pod is one");
    let many = memory.limit(&default, 30, 30, 2000);
    assert_eq!((many.replicas, many.why.unwrap().0), (20, "TooManyReplicas"));
}
