#![allow(clippy::unwrap_used)]

use quorate_objects::job::{FAILURE_TARGET, SUCCESS_CRITERIA_MET};
use serde_json::{Value, json};

use super::*;

fn job(spec: &Value, status: &Value) -> Job {
    let mut value = json!({
        "metadata": {"name": "sum", "namespace": "default", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}},
            "parallelism": 1, "backoffLimit": 6},
        "status": status,
    });
    for (field, content) in spec.as_object().unwrap() {
        value["spec"][field] = content.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// A tracked pod: `uid`, phase, and more.
fn pod(uid: &str, phase: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": uid, "uid": uid, "finalizers": [TRACKING], "annotations": {},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": phase},
    });
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn index(index: i32) -> impl Fn(&mut Value) {
    move |value| value["metadata"]["annotations"][COMPLETION_INDEX] = json!(index.to_string())
}

fn exited(code: i32) -> Value {
    json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}}])
}

fn planned(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    let spec = job.spec.as_ref().unwrap();
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let state = State { job, spec, pods, now, back_off: Duration::from_secs(10) };
    plan(&state)
}

fn created(plan: &Plan) -> Vec<Option<i32>> {
    plan.create.iter().map(|new| new.index).collect()
}

fn reason(plan: &Plan, condition: &str) -> Option<String> {
    let conditions = plan.status.conditions.iter().flatten();
    let found = conditions.into_iter().find(|one| one.type_ == condition && one.status == "True");
    found.and_then(|one| one.reason.clone())
}

#[test]
fn every_pod_counts_once_wherever_it_is_interrupted() {
    let spec = json!({"completions": 2});
    // 1. It has ended: its uid is written down, and the finalizer may go.
    let plan = planned(&job(&spec, &json!({})), &[pod("a", "Succeeded", |_| {})]);
    let status = serde_json::to_value(&plan.status).unwrap();
    assert_eq!(status["uncountedTerminatedPods"]["succeeded"], json!(["a"]));
    assert_eq!((status["succeeded"].clone(), plan.untrack.len()), (json!(0), 1));
    assert_eq!(created(&plan), [None], "one success is one less to go");
    // 2. Interrupted before the finalizer went: the same again.
    let again = planned(&job(&spec, &status), &[pod("a", "Succeeded", |_| {})]);
    assert_eq!(again.status.uncounted_terminated_pods, plan.status.uncounted_terminated_pods);
    assert_eq!(again.untrack.len(), 1);
    // 3. The finalizer is gone, or the pod is: it is a number now.
    let free = pod("a", "Succeeded", |value| value["metadata"]["finalizers"] = json!([]));
    for pods in [vec![free], vec![]] {
        let done = planned(&job(&spec, &status), &pods);
        assert_eq!(done.status.succeeded, Some(1));
        assert_eq!(done.status.uncounted_terminated_pods, None);
        assert!(done.untrack.is_empty());
    }
}

#[test]
fn completions_and_parallelism() {
    let running = |uid: &str| pod(uid, "Running", |_| {});
    let many = job(&json!({"completions": 5, "parallelism": 3}), &json!({"succeeded": 3}));
    assert_eq!(planned(&many, &[]).create.len(), 2, "no more than are missing");
    assert_eq!(planned(&many, &[running("a")]).create.len(), 1);
    let fewer = job(&json!({"completions": 5, "parallelism": 1}), &json!({}));
    assert_eq!(planned(&fewer, &[running("a"), running("b")]).delete.len(), 1);
    // A queue of work ends when one has succeeded and nobody works any more.
    let queue = |status| job(&json!({"parallelism": 2}), &status);
    assert_eq!(planned(&queue(json!({})), &[]).create.len(), 2);
    let one = planned(&queue(json!({"succeeded": 1})), &[running("a")]);
    assert!(one.create.is_empty() && reason(&one, COMPLETE).is_none());
    let done = planned(&queue(json!({"succeeded": 1})), &[]);
    assert_eq!(reason(&done, COMPLETE).as_deref(), Some("CompletionsReached"));
    assert!(done.status.completion_time.is_some());
}

#[test]
fn each_index_succeeds_once() {
    let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    let empty = job(&spec, &json!({}));
    assert_eq!(created(&planned(&empty, &[])), [Some(0), Some(1)]);
    let pods = [pod("a", "Succeeded", index(0)), pod("b", "Running", index(1))];
    let plan = planned(&empty, &pods);
    assert_eq!(created(&plan), [Some(2)]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    assert_eq!(plan.status.succeeded, Some(1));
    // A second pod of one index, or one of an index that is done, has to go.
    let pods = [pod("b", "Running", index(1)), pod("c", "Running", index(1))];
    assert_eq!(planned(&empty, &pods).delete[0].metadata.name.as_deref(), Some("c"));
    let late = job(&spec, &json!({"completedIndexes": "0-2"}));
    let plan = planned(&late, &[pod("c", "Running", index(1)), pod("d", "Succeeded", index(3))]);
    assert_eq!(plan.delete.len(), 1);
    assert_eq!(reason(&plan, SUCCESS_CRITERIA_MET).as_deref(), Some("CompletionsReached"));
}

#[test]
fn failures_pause_and_end_the_job() {
    let failed = |uid: &str| pod(uid, "Failed", |_| {});
    let limited = job(&json!({"completions": 1, "backoffLimit": 1}), &json!({}));
    let once = planned(&limited, &[failed("a")]);
    assert_eq!(once.create.len(), 1, "the pause is long over");
    assert_eq!(reason(&once, FAILED), None);
    let twice = planned(&limited, &[failed("a"), failed("b"), pod("c", "Running", |_| {})]);
    assert_eq!(reason(&twice, FAILURE_TARGET).as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(twice.delete.len(), 1, "what runs is stopped");
    // 20 s after the second failure in a row; the third pod has to wait.
    let state = |seconds: i64| {
        let pods = [failed("a"), failed("b")];
        let job = job(&json!({"completions": 1}), &json!({}));
        let now = Timestamp::from_second(1_767_225_600 + seconds).unwrap();
        let spec = job.spec.as_ref().unwrap();
        let back_off = Duration::from_secs(10);
        let plan = plan(&State { job: &job, spec, pods: &pods, now, back_off });
        (plan.create.len(), plan.wait)
    };
    assert_eq!(state(5), (0, Some(Duration::from_secs(15))));
    assert_eq!(state(21).0, 1);
}

#[test]
fn pods_that_are_deleted_count_as_failed() {
    let going = |value: &mut Value| {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        value["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    };
    let spec = json!({"completions": 1});
    let plan = planned(&job(&spec, &json!({})), &[pod("a", "Running", going)]);
    assert_eq!((plan.untrack.len(), plan.create.len()), (1, 1), "replaced at once");
    let patient = json!({"completions": 1, "podReplacementPolicy": "Failed"});
    let plan = planned(&job(&patient, &json!({})), &[pod("a", "Running", going)]);
    assert_eq!((plan.untrack.len(), plan.create.len()), (0, 0), "not before it has ended");
    assert_eq!(plan.status.terminating, Some(1));
}

#[test]
fn the_failure_policy() {
    let rule = |action: &str, condition: Value| {
        let mut rule = json!({"action": action});
        rule.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
        json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": {"rules": [rule]}})
    };
    let codes = json!({"onExitCodes": {"operator": "In", "values": [42]}});
    let with_code = |code| pod("a", "Failed", |v| v["status"]["containerStatuses"] = exited(code));
    let fatal = job(&rule("FailJob", codes.clone()), &json!({}));
    let plan = planned(&fatal, &[with_code(42)]);
    assert_eq!(reason(&plan, FAILED).as_deref(), Some("PodFailurePolicy"));
    let plan = planned(&fatal, &[with_code(1)]);
    assert_eq!(reason(&plan, FAILED).as_deref(), Some("BackoffLimitExceeded"), "no rule matches");
    let ignored = planned(&job(&rule("Ignore", codes), &json!({})), &[with_code(42)]);
    assert_eq!((ignored.status.failed, ignored.create.len()), (Some(0), 1));
    assert_eq!((ignored.status.uncounted_terminated_pods, ignored.untrack.len()), (None, 1));
    let disrupted = json!({"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    let evicted = pod("a", "Failed", |value| {
        value["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    });
    let plan = planned(&job(&rule("Ignore", disrupted), &json!({})), &[evicted]);
    assert_eq!(plan.create.len(), 1);
}

#[test]
fn the_success_policy() {
    let with = |rules: Value| {
        json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
            "successPolicy": {"rules": rules}})
    };
    let pods = |done: i32| {
        let phase = |number: i32| if number < done { "Succeeded" } else { "Running" };
        (0..4).map(|n| pod(&format!("p{n}"), phase(n), index(n))).collect::<Vec<_>>()
    };
    for (rules, enough, rule) in [
        (json!([{"succeededCount": 2}]), 2, 0),
        (json!([{"succeededIndexes": "0-2"}]), 3, 0),
        (json!([{"succeededIndexes": "0-2", "succeededCount": 1}]), 1, 0),
        (json!([{"succeededIndexes": "3"}, {"succeededIndexes": "1"}]), 2, 1),
    ] {
        let spec = with(rules);
        let fewer = planned(&job(&spec, &json!({})), &pods(enough - 1));
        assert_eq!(reason(&fewer, SUCCESS_CRITERIA_MET), None, "{spec}");
        let met = planned(&job(&spec, &json!({})), &pods(enough));
        assert_eq!(reason(&met, SUCCESS_CRITERIA_MET).as_deref(), Some("SuccessPolicy"), "{spec}");
        let message = met.status.conditions.iter().flatten().find_map(|c| c.message.clone());
        assert_eq!(message, Some(format!("Matched rules at index {rule}")));
        assert_eq!(i32::try_from(met.delete.len()).unwrap(), 4 - enough, "the others are stopped");
    }
}

#[test]
fn the_end_waits_until_nothing_runs() {
    let going = |value: &mut Value| {
        index(1)(value);
        value["metadata"]["finalizers"] = json!([]);
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    };
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimit": 0, "successPolicy": {"rules": [{"succeededCount": 1}]}});
    let pods = [pod("a", "Succeeded", index(0)), pod("b", "Running", index(1))];
    let met = planned(&job(&spec, &json!({})), &pods);
    assert_eq!((met.delete.len(), reason(&met, COMPLETE)), (1, None));
    assert!(met.status.completion_time.is_none());
    let status = serde_json::to_value(&met.status).unwrap();
    // It is stopping, and whatever becomes of it, the decision stands.
    let stopping = planned(&job(&spec, &status), &[pods[0].clone(), pod("b", "Running", going)]);
    assert_eq!((stopping.create.len(), reason(&stopping, COMPLETE)), (0, None));
    assert_eq!(stopping.status.conditions, met.status.conditions, "nothing new is written");
    let failed = pod("b", "Failed", index(1));
    for pods in [vec![pods[0].clone()], vec![pods[0].clone(), failed]] {
        let end = planned(&job(&spec, &status), &pods);
        assert_eq!(reason(&end, COMPLETE).as_deref(), Some("SuccessPolicy"));
        assert_eq!(reason(&end, FAILED), None);
        assert!(end.status.completion_time.is_some() && end.create.is_empty());
    }
    // A failure that was decided on is not undone by a success that comes late.
    let target = json!({"conditions": [{"type": FAILURE_TARGET, "status": "True",
        "reason": "DeadlineExceeded", "message": "m"}]});
    let late = planned(&job(&spec, &target), &[pod("a", "Succeeded", index(0))]);
    assert_eq!(reason(&late, FAILED).as_deref(), Some("DeadlineExceeded"));
    assert_eq!(reason(&late, COMPLETE), None);
}

#[test]
fn a_job_is_complete_when_its_completions_are_counted() {
    let spec = json!({"completions": 2, "parallelism": 2});
    let pods = [pod("b", "Succeeded", |_| {})];
    let last = planned(&job(&spec, &json!({"succeeded": 1})), &pods);
    assert_eq!((last.status.succeeded, reason(&last, COMPLETE)), (Some(1), None));
    assert!(reason(&last, SUCCESS_CRITERIA_MET).is_some() && last.untrack.len() == 1);
    let status = serde_json::to_value(&last.status).unwrap();
    let free = pod("b", "Succeeded", |value| value["metadata"]["finalizers"] = json!([]));
    let counted = planned(&job(&spec, &status), &[free]);
    assert_eq!(counted.status.succeeded, Some(2));
    assert_eq!(reason(&counted, COMPLETE).as_deref(), Some("CompletionsReached"));
}

#[test]
fn indexes_fail_on_their_own() {
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "backoffLimitPerIndex": 1, "backoffLimit": 100, "maxFailedIndexes": 1});
    let failed = |uid: &str, number: i32, failures: i32| {
        pod(uid, "Failed", |value| {
            index(number)(value);
            value["metadata"]["annotations"][FAILURES] = json!(failures.to_string());
        })
    };
    let once = planned(&job(&spec, &json!({})), &[failed("a", 0, 0)]);
    assert_eq!(once.create[0], New { index: Some(0), failures: 1 });
    let twice = planned(&job(&spec, &json!({})), &[failed("a", 0, 1)]);
    assert_eq!(twice.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(created(&twice), [Some(1), Some(2)]);
    let status = json!({"failedIndexes": "0", "completedIndexes": "1,2", "succeeded": 2});
    let end = planned(&job(&spec, &status), &[]);
    assert_eq!(reason(&end, FAILED).as_deref(), Some("FailedIndexes"));
    let many = planned(&job(&spec, &json!({"failedIndexes": "0"})), &[failed("a", 1, 1)]);
    assert_eq!(reason(&many, FAILED).as_deref(), Some("MaxFailedIndexesExceeded"));
}

#[test]
fn suspended_resumed_and_too_late() {
    let spec = json!({"completions": 1, "suspend": true});
    let plan = planned(&job(&spec, &json!({})), &[pod("a", "Running", |_| {})]);
    assert_eq!((plan.delete.len(), plan.create.len()), (1, 0));
    assert_eq!(reason(&plan, SUSPENDED).as_deref(), Some("JobSuspended"));
    assert_eq!(plan.status.start_time, None);
    let status = serde_json::to_value(&plan.status).unwrap();
    let resumed = planned(&job(&json!({"completions": 1}), &status), &[]);
    assert!(reason(&resumed, SUSPENDED).is_none() && resumed.create.len() == 1);
    assert!(resumed.status.start_time.is_some());
    let deadline = json!({"completions": 1, "activeDeadlineSeconds": 60});
    let started = json!({"startTime": "2026-01-01T00:58:00Z"});
    let late = planned(&job(&deadline, &started), &[]);
    assert_eq!(reason(&late, FAILED).as_deref(), Some("DeadlineExceeded"));
    let started = json!({"startTime": "2026-01-01T00:59:30Z"});
    let in_time = planned(&job(&deadline, &started), &[]);
    assert_eq!(in_time.wait, Some(Duration::from_secs(30)));
}

#[test]
fn removal_after_the_end() {
    let ended = json!({"conditions": [{"type": "Complete", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let left = |spec: Value, status: &Value| {
        until_removal(&job(&spec, status), "2026-01-01T00:00:40Z".parse().unwrap())
    };
    let ttl = json!({"ttlSecondsAfterFinished": 60});
    assert_eq!(left(ttl.clone(), &ended), Some(Duration::from_secs(20)));
    assert_eq!(left(json!({"ttlSecondsAfterFinished": 0}), &ended), Some(Duration::ZERO));
    assert_eq!(left(json!({}), &ended), None);
    assert_eq!(left(ttl, &json!({})), None);
}
