use super::*;

#[test]
fn an_autoscaler_goes_to_version_1_and_back_without_loss() {
    let cpu = json!({
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}},
    });
    let memory = json!({
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}},
    });
    let stored = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"a": "b"}},
        "spec": {"maxReplicas": 5, "metrics": [cpu, memory], "behavior": {"scaleUp": {}}},
    });
    let version = Version::find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let mut value = stored.clone();
    version.serve(&mut value);
    assert_eq!(value["apiVersion"], "autoscaling/v1");
    assert_eq!(value["spec"], json!({"maxReplicas": 5, "targetCPUUtilizationPercentage": 60}));
    version.store(&mut value);
    assert_eq!(value, stored);
}

#[test]
fn what_kubectl_autoscale_sends_is_understood() {
    let mut value = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 80},
    });
    BUILTIN[0].store(&mut value);
    assert_eq!(value["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    quorate_objects::decode(value, &kinds::HORIZONTAL_POD_AUTOSCALER).unwrap();
}
