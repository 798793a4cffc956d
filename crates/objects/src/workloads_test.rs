//! Kinds of workloads, policies and storage: defaults, rules in Kubernetes' words, columns.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds_test::{ready, with, wrong, wrong_update};
use crate::{Kind, kinds};

fn pod_template(policy: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": policy, "containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn object(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec})
}

fn stateful_set() -> Value {
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let mut template = pod_template("Always");
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    template["spec"]["containers"][0]["volumeMounts"] = mounts;
    let spec = json!({"serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": template, "volumeClaimTemplates": [claim]});
    object("apps/v1", "StatefulSet", spec)
}

fn daemon_set() -> Value {
    let selector = json!({"matchLabels": {"app": "web"}});
    let spec = json!({"selector": selector, "template": pod_template("Always")});
    object("apps/v1", "DaemonSet", spec)
}

fn job() -> Value {
    object("batch/v1", "Job", json!({"template": pod_template("Never")}))
}

fn cron_job() -> Value {
    let spec = json!({"schedule": "*/5 * * * *",
        "jobTemplate": {"spec": {"template": pod_template("OnFailure")}}});
    object("batch/v1", "CronJob", spec)
}

fn autoscaler() -> Value {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let spec = json!({"scaleTargetRef": target, "maxReplicas": 5});
    object("autoscaling/v2", "HorizontalPodAutoscaler", spec)
}

fn claim() -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}});
    object("v1", "PersistentVolumeClaim", spec)
}

fn others() -> Vec<Value> {
    let budget = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/data"}});
    let mut volume = object("v1", "PersistentVolume", volume);
    volume["metadata"]["namespace"].take();
    let bare = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"}});
    let mut class = bare("storage.k8s.io/v1", "StorageClass");
    class["provisioner"] = json!("quorate.dev/docker-volume");
    let mut priority = bare("scheduling.k8s.io/v1", "PriorityClass");
    priority["value"] = json!(1000);
    let limits = json!({"limits": [{"type": "Container", "max": {"cpu": "1"}}]});
    let mut endpoints = bare("v1", "Endpoints");
    endpoints["metadata"]["namespace"] = json!("default");
    let subset = json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]});
    endpoints["subsets"] = json!([subset]);
    let mut account = bare("v1", "ServiceAccount");
    account["metadata"]["namespace"] = json!("default");
    let mut revision = bare("apps/v1", "ControllerRevision");
    revision["metadata"]["namespace"] = json!("default");
    revision["revision"] = json!(1);
    vec![
        object("policy/v1", "PodDisruptionBudget", budget),
        object("v1", "ResourceQuota", json!({"hard": {"pods": "10", "limits.cpu": "4"}})),
        object("v1", "LimitRange", limits),
        volume,
        class,
        priority,
        endpoints,
        account,
        revision,
    ]
}

#[test]
fn valid_objects_are_valid_and_defaulting_twice_changes_nothing() {
    let first = [stateful_set(), daemon_set(), job(), cron_job(), autoscaler(), claim()];
    for value in first.into_iter().chain(others()) {
        let kind = value["kind"].clone();
        let once = ready(value);
        assert_eq!(ready(once.clone()), once, "{kind}");
        assert_eq!(wrong(once.clone()), Vec::<String>::new(), "{kind}");
        assert_eq!(wrong_update(once.clone(), once), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn defaults_are_kubernetes() {
    let spec = &ready(stateful_set())["spec"];
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(spec["updateStrategy"]["rollingUpdate"]["partition"], 0);
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Retain");
    assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
    let spec = &ready(daemon_set())["spec"];
    assert_eq!(spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let value = ready(job());
    let spec = &value["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(1), &json!(1)));
    assert_eq!(spec["backoffLimit"], 6);
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], "u1");
    assert_eq!(labels["job-name"], "web");
    let selected = &spec["selector"]["matchLabels"];
    assert_eq!(selected["batch.kubernetes.io/controller-uid"], "u1");
    let parallel = ready(with(job(), "/spec/parallelism", json!(3)));
    assert!(parallel["spec"].get("completions").is_none(), "a work queue");
    let spec = &ready(cron_job())["spec"];
    assert_eq!(spec["concurrencyPolicy"], "Allow");
    assert_eq!(spec["successfulJobsHistoryLimit"], 3);
    assert!(spec["jobTemplate"]["spec"].get("selector").is_none(), "each job makes its own");
    let spec = &ready(autoscaler())["spec"];
    assert_eq!(spec["minReplicas"], 1);
    assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let item = &ready(others().remove(2))["spec"]["limits"][0];
    assert_eq!(item["defaultRequest"]["cpu"], "1", "from the maximum");
}

#[test]
fn rules_speak_kubernetes() {
    let policy = |action: &str| json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [0]}}]});
    let zero = json!({"maxSurge": 0, "maxUnavailable": 0});
    let both = json!({"minAvailable": 1, "maxUnavailable": 1});
    let low = json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]);
    for (value, want) in [
        (
            with(stateful_set(), "/spec/podManagementPolicy", json!("Random")),
            "spec.podManagementPolicy: Unsupported value: \"Random\": supported values: \
             \"OrderedReady\", \"Parallel\"",
        ),
        (
            with(stateful_set(), "/spec/template/spec/restartPolicy", json!("Never")),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
             \"Always\"",
        ),
        (
            with(daemon_set(), "/spec/updateStrategy", json!({"rollingUpdate": zero})),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 \
             when `maxSurge` is 0",
        ),
        (
            with(job(), "/spec/template", pod_template("Always")),
            "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \
             \"OnFailure\", \"Never\"",
        ),
        (
            with(
                with(job(), "/spec/completionMode", json!("Indexed")),
                "/spec/parallelism",
                json!(2),
            ),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            with(job(), "/spec/podFailurePolicy", policy("FailJob")),
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: 0: must not be 0 \
             for the In operator",
        ),
        (
            with(job(), "/spec/selector", json!({"matchLabels": {"app": "web"}})),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\"}}: `selector` not \
             auto-generated",
        ),
        (
            with(cron_job(), "/spec/schedule", json!("0 0 30 2 *")),
            "spec.schedule: Invalid value: \"0 0 30 2 *\": the schedule never fires: no year has \
             such a day",
        ),
        (
            with(cron_job(), "/spec/timeZone", json!("Mars/Base")),
            "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
        ),
        (
            with(autoscaler(), "/spec/minReplicas", json!(9)),
            "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
        ),
        (
            with(others().remove(0), "/spec", both),
            "spec: Invalid value: \"\": minAvailable and maxUnavailable cannot be both set",
        ),
        (
            with(others().remove(2), "/spec/limits", low),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max \
             value 1",
        ),
        (with(claim(), "/spec/resources", json!({})), "spec.resources[storage]: Required value"),
        (
            with(others().remove(1), "/spec/hard/pods", json!("-1")),
            "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ] {
        let errors = wrong(value);
        assert!(errors.iter().any(|error| error == want), "{want}\n{errors:?}");
    }
}

#[test]
fn success_policies() {
    let succeeds = |policy: Value| {
        let indexed = with(job(), "/spec/completionMode", json!("Indexed"));
        with(with(indexed, "/spec/completions", json!(3)), "/spec/successPolicy", policy)
    };
    let fine = json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 2}]});
    assert_eq!(wrong(ready(succeeds(fine))), Vec::<String>::new());
    for (value, want) in [
        (
            with(job(), "/spec/successPolicy", json!({"rules": [{"succeededCount": 1}]})),
            "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires \
             indexed completion mode",
        ),
        (
            succeeds(json!({"rules": []})),
            "spec.successPolicy.rules: Required value: at least one rules must be specified when \
             the successPolicy is specified",
        ),
        (
            succeeds(json!({"rules": [{}]})),
            "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or \
             succeededIndexes must be specified",
        ),
        (
            succeeds(json!({"rules": [{"succeededIndexes": "0,3"}]})),
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0,3\": error parsing \
             succeededIndexes: too large index: \"3\"",
        ),
        (
            succeeds(json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 3}]})),
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or \
             equal to 2 (the number of indexes in the specified succeededIndexes field)",
        ),
    ] {
        let errors = wrong(value);
        assert!(errors.iter().any(|error| error == want), "{want}\n{errors:?}");
    }
}

#[test]
fn what_updates_may_change() {
    let scaled = with(ready(stateful_set()), "/spec/replicas", json!(4));
    assert_eq!(wrong_update(scaled, ready(stateful_set())), Vec::<String>::new());
    let renamed = with(ready(stateful_set()), "/spec/serviceName", json!("other"));
    let errors = wrong_update(renamed, ready(stateful_set()));
    assert!(errors[0].starts_with("spec: Forbidden: updates to statefulset spec"), "{errors:?}");
    let more = with(ready(job()), "/spec/parallelism", json!(4));
    assert_eq!(wrong_update(more, ready(job())), Vec::<String>::new());
    let other = with(ready(job()), "/spec/completions", json!(4));
    let errors = wrong_update(other, ready(job()));
    assert_eq!(errors, ["spec.completions: Invalid value: 4: field is immutable"]);
    let bound = with(ready(claim()), "/spec/volumeName", json!("pv1"));
    assert_eq!(wrong_update(bound.clone(), ready(claim())), Vec::<String>::new());
    let moved = with(bound.clone(), "/spec/volumeName", json!("pv2"));
    assert!(wrong_update(moved, bound)[0].starts_with("spec: Forbidden: spec is immutable"));
}

#[test]
fn columns() {
    let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    let row = |kind: &Kind, value: &Value| kind.row(value, now);
    let mut value = ready(job());
    value["status"] = json!({"succeeded": 1, "startTime": "2026-01-01T00:05:00Z",
        "completionTime": "2026-01-01T00:06:05Z",
        "conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(row(&kinds::JOB, &value)[..4], ["web", "Complete", "1/1", "65s"]);
    let mut value = ready(autoscaler());
    value["status"] = json!({"desiredReplicas": 2, "currentReplicas": 2, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40}}}]});
    let cells = row(&kinds::HORIZONTAL_POD_AUTOSCALER, &value);
    assert_eq!(cells[..6], ["web", "Deployment/web", "cpu: 40%/80%", "1", "5", "2"]);
    let mut value = ready(stateful_set());
    value["status"] = json!({"replicas": 1, "readyReplicas": 1});
    assert_eq!(row(&kinds::STATEFUL_SET, &value)[..2], ["web", "1/1"]);
    let value = ready(others().remove(1));
    assert_eq!(row(&kinds::RESOURCE_QUOTA, &value)[1..3], ["pods: 0/10", "limits.cpu: 0/4"]);
}
