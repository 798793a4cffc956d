//! Pods.

use serde_json::Value;

use super::writer::Writer;
use super::{conditions, metadata};
use crate::json::{int, list, pairs, plain, text};

pub fn describe(pod: &Value, w: &mut Writer) {
    let node = text(pod, "/spec/nodeName");
    let host = text(pod, "/status/hostIP");
    w.optional("Priority Class", text(pod, "/spec/priorityClassName"));
    w.field("Node", &if host.is_empty() { node.to_owned() } else { format!("{node}/{host}") });
    w.field("Start Time", text(pod, "/status/startTime"));
    metadata(pod, w);
    match text(pod, "/metadata/deletionTimestamp") {
        "" => w.field("Status", text(pod, "/status/phase")),
        since => {
            w.field("Status", &format!("Terminating (since {since})"));
            let grace = int(pod, "/metadata/deletionGracePeriodSeconds");
            w.field("Termination Grace", &format!("{grace}s"));
        }
    }
    w.optional("Reason", text(pod, "/status/reason"));
    w.optional("Message", text(pod, "/status/message"));
    w.field("IP", text(pod, "/status/podIP"));
    for owner in list(pod, "/metadata/ownerReferences") {
        w.field("Controlled By", &format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    containers(pod, "Init Containers", "/spec/initContainers", "/status/initContainerStatuses", w);
    containers(pod, "Containers", "/spec/containers", "/status/containerStatuses", w);
    conditions(pod, w);
    volumes(pod, w);
    w.map("Node-Selectors", pod.pointer("/spec/nodeSelector"));
    let tolerations: Vec<String> = list(pod, "/spec/tolerations").iter().map(toleration).collect();
    w.list("Tolerations", &tolerations);
}

fn containers(pod: &Value, heading: &str, spec: &str, status: &str, w: &mut Writer) {
    let containers = list(pod, spec);
    if containers.is_empty() {
        return;
    }
    w.section(heading, |w| {
        for container in containers {
            let name = text(container, "/name");
            let status = list(pod, status).iter().find(|s| text(s, "/name") == name);
            w.section(name, |w| one(container, status.unwrap_or(&Value::Null), w));
        }
    });
}

fn one(container: &Value, status: &Value, w: &mut Writer) {
    w.field("Container ID", text(status, "/containerID"));
    w.field("Image", text(container, "/image"));
    w.field("Image ID", text(status, "/imageID"));
    let port = |p: &Value| {
        let protocol = text(p, "/protocol");
        let protocol = if protocol.is_empty() { "TCP" } else { protocol };
        format!("{}/{protocol}", int(p, "/containerPort"))
    };
    let ports: Vec<String> = list(container, "/ports").iter().map(port).collect();
    w.field("Ports", &ports.join(", "));
    let words = |pointer| list(container, pointer).iter().map(plain).collect::<Vec<_>>();
    for (key, pointer) in [("Command", "/command"), ("Args", "/args")] {
        if container.pointer(pointer).is_some() {
            w.section(key, |w| words(pointer).iter().for_each(|word| w.line(word)));
        }
    }
    state("State", &status["state"], w);
    if status["lastState"].as_object().is_some_and(|last| !last.is_empty()) {
        state("Last State", &status["lastState"], w);
    }
    w.field("Ready", if status["ready"].as_bool() == Some(true) { "True" } else { "False" });
    w.field("Restart Count", &int(status, "/restartCount").to_string());
    for (key, pointer) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        if container.pointer(pointer).is_some() {
            let amounts = pairs(container, pointer, ":  ");
            w.section(key, |w| amounts.iter().for_each(|line| w.line(line)));
        }
    }
    for (key, pointer) in [
        ("Liveness", "/livenessProbe"),
        ("Readiness", "/readinessProbe"),
        ("Startup", "/startupProbe"),
    ] {
        if let Some(probe) = container.pointer(pointer) {
            w.field(key, &probe.to_string());
        }
    }
    let variables = list(container, "/env").iter().map(|variable| {
        let name = text(variable, "/name");
        match variable.get("valueFrom") {
            Some(source) => format!("{name}:  <{source}>"),
            None => format!("{name}:  {}", text(variable, "/value")),
        }
    });
    let variables: Vec<String> = variables.collect();
    if variables.is_empty() {
        w.field("Environment", "");
    } else {
        w.section("Environment", |w| variables.iter().for_each(|line| w.line(line)));
    }
    let mount = |m: &Value| {
        let mode = if m["readOnly"].as_bool() == Some(true) { "ro" } else { "rw" };
        format!("{} from {} ({mode})", text(m, "/mountPath"), text(m, "/name"))
    };
    let mounts: Vec<String> = list(container, "/volumeMounts").iter().map(mount).collect();
    w.list("Mounts", &mounts);
}

fn state(key: &str, state: &Value, w: &mut Writer) {
    let Some((name, details)) = state.as_object().and_then(|states| states.iter().next()) else {
        return w.field(key, "Waiting");
    };
    let mut title = name.clone();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    w.field(key, &title);
    w.optional("  Reason", text(details, "/reason"));
    w.optional("  Message", text(details, "/message"));
    if let Some(code) = details.get("exitCode") {
        w.field("  Exit Code", &code.to_string());
    }
    w.optional("  Started", text(details, "/startedAt"));
    w.optional("  Finished", text(details, "/finishedAt"));
}

fn volumes(pod: &Value, w: &mut Writer) {
    let volumes = list(pod, "/spec/volumes");
    if volumes.is_empty() {
        return w.field("Volumes", "");
    }
    w.section("Volumes", |w| {
        for volume in volumes {
            let source = volume.as_object().and_then(|v| v.iter().find(|(k, _)| *k != "name"));
            let source = source.map(|(kind, details)| format!("{kind} {details}"));
            w.field(text(volume, "/name"), &source.unwrap_or_default());
        }
    });
}

fn toleration(toleration: &Value) -> String {
    let mut line = text(toleration, "/key").to_owned();
    match text(toleration, "/operator") {
        "Exists" => {}
        _ => line = format!("{line}={}", text(toleration, "/value")),
    }
    let effect = text(toleration, "/effect");
    if !effect.is_empty() {
        line = format!("{line}:{effect}");
    }
    match toleration.get("tolerationSeconds").and_then(Value::as_i64) {
        Some(seconds) => format!("{line} for {seconds}s"),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_cannot_start() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "x"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
                "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}],
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 3}]},
            "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "ready": false,
                "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]},
        });
        let mut w = Writer::new(quorate_objects::time::timestamp());
        describe(&pod, &mut w);
        let text = w.finish();
        for part in ["Waiting", "ErrImagePull", "no such image", "80/TCP", "k:NoExecute for 3s"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
