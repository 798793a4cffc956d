//! What a rollout still waits for, in kubectl's words.

use serde_json::Value;

use crate::error::{CliError, Result};
use crate::json::{int, list, text};

/// How far a rollout is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting(String),
    Done(String),
}

/// Looks at an object of one of the kinds that roll out.
pub(super) fn progress(object: &Value) -> Result<Progress> {
    let kind = text(object, "/kind");
    let words = match kind {
        "DaemonSet" => "daemon set",
        "StatefulSet" => "statefulset",
        _ => "deployment",
    };
    if int(object, "/metadata/generation") > int(object, "/status/observedGeneration") {
        return Ok(Progress::Waiting(format!("Waiting for {words} spec update to be observed...")));
    }
    match kind {
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        _ => deployment(object),
    }
}

fn rolls(object: &Value) -> Result<()> {
    let kind = text(object, "/spec/updateStrategy/type");
    if kind == "OnDelete" {
        let text = "rollout status is only available for RollingUpdate strategy type";
        return Err(CliError::local(text));
    }
    Ok(())
}

fn deployment(object: &Value) -> Result<Progress> {
    let name = text(object, "/metadata/name");
    let late = list(object, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == "Progressing"
            && text(condition, "/reason") == "ProgressDeadlineExceeded"
    });
    if late {
        let message = format!("deployment {name:?} exceeded its progress deadline");
        return Err(CliError::local(message));
    }
    let count = |field: &str| int(object, &format!("/status/{field}"));
    let wanted = int(object, "/spec/replicas");
    let (all, updated) = (count("replicas"), count("updatedReplicas"));
    let available = count("availableReplicas");
    let rest = if updated < wanted {
        format!("{updated} out of {wanted} new replicas have been updated...")
    } else if all > updated {
        format!("{} old replicas are pending termination...", all - updated)
    } else if available < updated {
        format!("{available} of {updated} updated replicas are available...")
    } else {
        return Ok(Progress::Done(format!("deployment {name:?} successfully rolled out")));
    };
    Ok(Progress::Waiting(format!("Waiting for deployment {name:?} rollout to finish: {rest}")))
}

fn daemon_set(object: &Value) -> Result<Progress> {
    rolls(object)?;
    let name = text(object, "/metadata/name");
    let count = |field: &str| int(object, &format!("/status/{field}"));
    let (wanted, updated) = (count("desiredNumberScheduled"), count("updatedNumberScheduled"));
    let available = count("numberAvailable");
    let rest = if updated < wanted {
        format!("{updated} out of {wanted} new pods have been updated...")
    } else if available < wanted {
        format!("{available} of {wanted} updated pods are available...")
    } else {
        return Ok(Progress::Done(format!("daemon set {name:?} successfully rolled out")));
    };
    Ok(Progress::Waiting(format!("Waiting for daemon set {name:?} rollout to finish: {rest}")))
}

fn stateful_set(object: &Value) -> Result<Progress> {
    rolls(object)?;
    let count = |field: &str| int(object, &format!("/status/{field}"));
    let wanted = int(object, "/spec/replicas");
    let (ready, updated) = (count("readyReplicas"), count("updatedReplicas"));
    if ready < wanted {
        let text = format!("Waiting for {} pods to be ready...", wanted - ready);
        return Ok(Progress::Waiting(text));
    }
    let partition = int(object, "/spec/updateStrategy/rollingUpdate/partition");
    if partition > 0 {
        let target = (wanted - partition).max(0);
        return Ok(if updated < target {
            Progress::Waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {target} new pods \
                 have been updated..."
            ))
        } else {
            Progress::Done(format!(
                "partitioned roll out complete: {updated} new pods have been updated..."
            ))
        });
    }
    let revision = text(object, "/status/updateRevision");
    if revision != text(object, "/status/currentRevision") {
        return Ok(Progress::Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision \
             {revision}..."
        )));
    }
    let current = count("currentReplicas");
    Ok(Progress::Done(format!(
        "statefulset rolling update complete {current} pods at revision {revision}..."
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, spec: &Value, status: &Value) -> Value {
        json!({"kind": kind, "metadata": {"name": "web", "generation": 2}, "spec": spec,
               "status": status})
    }

    fn said(kind: &str, spec: &Value, status: &Value) -> String {
        match progress(&object(kind, spec, status)).unwrap() {
            Progress::Waiting(text) | Progress::Done(text) => text,
        }
    }

    #[test]
    fn deployments() {
        let spec = json!({"replicas": 3});
        let message = |status: &Value| said("Deployment", &spec, status);
        assert!(message(&json!({"observedGeneration": 1})).contains("to be observed"));
        let mut status = json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1});
        assert!(message(&status).contains("1 out of 3 new replicas"));
        status["updatedReplicas"] = json!(3);
        assert!(message(&status).contains("1 old replicas are pending"));
        status["replicas"] = json!(3);
        status["availableReplicas"] = json!(2);
        assert!(message(&status).contains("2 of 3 updated replicas are available"));
        status["availableReplicas"] = json!(3);
        assert_eq!(message(&status), "deployment \"web\" successfully rolled out");
        status["conditions"] =
            json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert!(progress(&object("Deployment", &spec, &status)).is_err());
    }

    #[test]
    fn daemon_sets_and_stateful_sets() {
        let spec = json!({"updateStrategy": {"type": "RollingUpdate"}, "replicas": 3});
        let mut status = json!({"observedGeneration": 2, "desiredNumberScheduled": 2,
            "updatedNumberScheduled": 1});
        assert!(said("DaemonSet", &spec, &status).contains("1 out of 2 new pods"));
        status["updatedNumberScheduled"] = json!(2);
        status["numberAvailable"] = json!(2);
        assert!(said("DaemonSet", &spec, &status).contains("successfully rolled out"));
        let mut status = json!({"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 1,
            "currentRevision": "a", "updateRevision": "b"});
        assert!(said("StatefulSet", &spec, &status).contains("1 pods at revision b"));
        status["currentRevision"] = json!("b");
        assert!(
            said("StatefulSet", &spec, &status).starts_with("statefulset rolling update complete")
        );
        let manual = json!({"updateStrategy": {"type": "OnDelete"}});
        assert!(progress(&object("DaemonSet", &manual, &status)).is_err());
    }
}
