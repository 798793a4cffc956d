#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::kinds;
use crate::{FieldValidation, Invalid, Kind, Typed, decode, decode_complete, decode_with};

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

fn kind(value: &Value) -> &'static Kind {
    let text = |field: &str| value[field].as_str().unwrap();
    Kind::by_gvk(text("apiVersion"), text("kind")).unwrap()
}

/// Decoded and with defaults.
pub(crate) fn ready(value: Value) -> Value {
    let kind = kind(&value);
    let mut value = decode(value, kind).unwrap();
    kind.default(&mut value).unwrap();
    value
}

/// The texts of all errors of a new object.
pub(crate) fn wrong(value: Value) -> Vec<String> {
    let value = ready(value);
    match kind(&value).validate(&value) {
        Ok(()) => Vec::new(),
        Err(invalid) => invalid.errors.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn wrong_update(new: Value, old: Value) -> Vec<String> {
    let (new, old) = (ready(new), ready(old));
    match kind(&new).validate_update(&new, &old) {
        Ok(()) => Vec::new(),
        Err(invalid) => invalid.errors.iter().map(ToString::to_string).collect(),
    }
}

fn undecodable(value: Value) -> String {
    let kind = kind(&value);
    decode(value, kind).unwrap_err().to_string()
}

pub(crate) fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[field] = new;
    value
}

#[test]
fn names_of_kinds() {
    for name in ["po", "pods", "pod", "Pod", "POD"] {
        assert_eq!(Kind::by_resource(name), Some(&kinds::POD), "{name}");
    }
    for name in ["deploy", "deployments.apps", "deployment.v1.apps"] {
        assert_eq!(Kind::by_resource(name), Some(&kinds::DEPLOYMENT), "{name}");
    }
    assert_eq!(Kind::by_resource("deployments.batch"), None);
    for kind in kinds::builtin() {
        assert_eq!(Kind::by_gvk(&kind.api_version(), kind.kind), Some(*kind));
        assert_eq!(Kind::by_resource(&kind.resource()), Some(*kind));
        let empty = json!({"apiVersion": kind.api_version(), "kind": kind.kind});
        assert_eq!(kind.row(&empty, Timestamp::UNIX_EPOCH).len(), kind.columns.len(), "{kind}");
    }
}

#[test]
fn a_decoded_pod_has_no_room_for_what_it_does_not_have() {
    let mut value = pod();
    value["status"] = json!({
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "web", "image": "web:1", "imageID": "", "ready": true,
                               "restartCount": 0}],
    });
    let pod = Pod::from_json(value.to_string().as_bytes()).unwrap();
    assert_eq!(pod.spec.unwrap().containers.capacity(), 1);
    let status = pod.status.unwrap();
    assert_eq!(status.conditions.unwrap().capacity(), 1);
    assert_eq!(status.container_statuses.unwrap().capacity(), 1);
}

#[test]
fn unknown_fields_have_their_path() {
    let text = undecodable(with(deployment(), "/spec/replica", json!(3)));
    assert_eq!(text, "Deployment.apps \"web\" is invalid: unknown field \"spec.replica\"");
    let text = undecodable(with(pod(), "/spec/containers/0/imag", json!("x")));
    assert!(text.ends_with("unknown field \"spec.containers[0].imag\""), "{text}");
    let loose = with(pod(), "/spec/colour", json!("red"));
    let decoded = decode_with(loose, &kinds::POD, FieldValidation::Ignore).unwrap();
    assert!(decoded["spec"].get("colour").is_none());
}

#[test]
fn decoding_and_defaults_in_one_step_are_the_same_as_in_two() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
                        "stringData": {"plain": "x"}});
    for value in [pod(), deployment(), secret] {
        let kind = kind(&value);
        let mut expected = decode(value.clone(), kind).unwrap();
        kind.default(&mut expected).unwrap();
        assert_eq!(
            decode_complete(value.clone(), kind, FieldValidation::Strict).unwrap().0,
            expected
        );
        let mut wrong = value;
        wrong["metadata"]["nam"] = json!("a");
        let text = |result: Result<Value, Invalid>| result.unwrap_err().to_string();
        let one = decode_complete(wrong.clone(), kind, FieldValidation::Strict);
        let one = text(one.map(|(complete, _)| complete));
        assert_eq!(one, text(decode(wrong.clone(), kind)));
        let (complete, verdict) = decode_complete(wrong, kind, FieldValidation::Ignore).unwrap();
        assert_eq!((&complete, verdict), (&expected, kind.validate(&complete)));
    }
}

#[test]
fn wrong_types_have_their_path() {
    for (pointer, value, path) in [
        ("/spec/replicas", json!("three"), "spec.replicas"),
        ("/spec/template/spec/containers", json!("web"), "spec.template.spec.containers"),
        (
            "/spec/template/spec/containers/0/image",
            json!(5),
            "spec.template.spec.containers[0].image",
        ),
        ("/metadata/labels", json!({"a": 1}), "metadata.labels.a"),
        ("/spec/paused", json!([1, 2]), "spec.paused"),
        ("/spec/selector/matchLabels", json!(["a"]), "spec.selector.matchLabels"),
    ] {
        let value = with(deployment(), pointer, value);
        let error = decode(value, &kinds::DEPLOYMENT).unwrap_err();
        assert_eq!(error.errors[0].path, path, "{error}");
    }
}

#[test]
fn every_strict_object_decodes() {
    for value in [pod(), deployment(), service()] {
        let once = ready(value);
        assert_eq!(ready(once.clone()), once, "defaulting twice changes nothing");
        assert_eq!(wrong(once), Vec::<String>::new());
    }
}

#[test]
fn defaults_are_kubernetes() {
    let deployment = ready(deployment());
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["strategy"]["type"], "RollingUpdate");
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    let pod_spec = &spec["template"]["spec"];
    assert_eq!(pod_spec["restartPolicy"], "Always");
    assert_eq!(pod_spec["terminationGracePeriodSeconds"], 30);
    let service = ready(service());
    assert_eq!(service["spec"]["type"], "ClusterIP");
    assert_eq!(service["spec"]["ports"][0]["protocol"], "TCP");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
    let unset = ready(with(self::service(), "/spec/ports/0/targetPort", json!(0)));
    assert_eq!(unset["spec"]["ports"][0]["targetPort"], 80);
    for (image, policy) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("web:1", "IfNotPresent"),
        ("host:5000/web", "Always"),
        ("host:5000/web:1", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
    ] {
        let pod = ready(with(pod(), "/spec/containers/0/image", json!(image)));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn validation_speaks_kubernetes() {
    for (value, want) in [
        (
            with(deployment(), "/spec/replicas", json!(-1)),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (with(pod(), "/spec/containers", json!([])), "spec.containers: Required value"),
        (
            with(pod(), "/spec/containers/0/image", json!("")),
            "spec.containers[0].image: Required value",
        ),
        (
            with(pod(), "/spec/restartPolicy", json!("Sometimes")),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"OnFailure\", \"Never\"",
        ),
        (
            with(pod(), "/spec/containers/0/ports", json!([{"containerPort": 70000}])),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 \
             and 65535, inclusive",
        ),
        (
            with(
                pod(),
                "/spec/containers/0/volumeMounts",
                json!([{"name": "v", "mountPath": "/v"}]),
            ),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            with(
                pod(),
                "/spec/containers",
                json!([
                {"name": "a", "image": "i"}, {"name": "a", "image": "i"}]),
            ),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            with(deployment(), "/spec/template/metadata/labels", json!({"app": "other"})),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does \
             not match template `labels`",
        ),
        (with(deployment(), "/spec/selector", json!({})), "spec.selector: Required value"),
        (with(service(), "/spec/ports", json!([])), "spec.ports: Required value"),
    ] {
        assert_eq!(wrong(value), [want]);
    }
    let long = with(pod(), "/metadata/name", json!("Web_1"));
    assert!(wrong(long)[0].starts_with("metadata.name: Invalid value: \"Web_1\": a lowercase"));
    let resources = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1", "memory": "x"}});
    let errors = wrong(with(pod(), "/spec/containers/0/resources", resources));
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn what_updates_may_change() {
    let image = with(pod(), "/spec/containers/0/image", json!("web:2"));
    assert_eq!(wrong_update(image, pod()), Vec::<String>::new());
    let node = with(pod(), "/spec/nodeName", json!("n1"));
    assert!(wrong_update(node, pod())[0].starts_with("spec: Forbidden: pod updates may not"));
    let tolerant = with(pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    assert_eq!(wrong_update(tolerant.clone(), pod()), Vec::<String>::new());
    assert_eq!(wrong_update(pod(), tolerant).len(), 1);
    let init = |name: &str, image: &str| {
        with(pod(), "/spec/initContainers", json!([{"name": name, "image": image}]))
    };
    assert_eq!(wrong_update(init("i", "i:2"), init("i", "i:1")), Vec::<String>::new());
    assert_eq!(wrong_update(init("j", "i:1"), init("i", "i:1")).len(), 1);
    assert_eq!(wrong_update(pod(), init("i", "i:1")).len(), 1);
    let gated = |names: &[&str]| {
        let gates: Value = names.iter().map(|name| json!({"name": name})).collect();
        with(pod(), "/spec/schedulingGates", gates)
    };
    assert_eq!(wrong_update(gated(&["b"]), gated(&["a", "b"])), Vec::<String>::new());
    assert_eq!(wrong_update(pod(), gated(&["a", "b"])), Vec::<String>::new());
    assert_eq!(wrong_update(gated(&["a", "b"]), gated(&["b"])).len(), 1);
    assert_eq!(wrong_update(gated(&["a"]), pod()).len(), 1);
    let mut other = with(deployment(), "/spec/selector/matchLabels/app", json!("other"));
    other["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    let errors = wrong_update(other, deployment());
    assert!(errors[0].starts_with("spec.selector: Invalid value"), "{errors:?}");
    let old = with(service(), "/spec/clusterIP", json!("10.208.0.9"));
    let new = with(service(), "/spec/clusterIP", json!("10.208.0.10"));
    assert_eq!(
        wrong_update(new, old),
        ["spec.clusterIPs[0]: Invalid value: \"10.208.0.10\": may not change once set"]
    );
}

/// A pod that is held back may still be told where to run, in so far as that takes nothing back.
#[test]
fn a_gated_pod_may_be_told_more_closely_where_to_run() {
    let gated = |selector: Value, affinity: Value| {
        let mut value = with(pod(), "/spec/schedulingGates", json!([{"name": "a"}]));
        value["spec"]["nodeSelector"] = selector;
        value["spec"]["affinity"] = affinity;
        value
    };
    let required = |terms: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}})
    };
    let exists = |key: &str| json!({"key": key, "operator": "Exists"});
    let (a, b) = (json!([{"matchExpressions": [exists("a")]}]), json!([exists("a"), exists("b")]));
    let (zone, both) = (json!({"zone": "x"}), json!({"zone": "x", "disk": "ssd"}));
    let none = || json!(null);
    let narrow = required(json!([{"matchExpressions": b}]));
    let other_term =
        required(json!([{"matchExpressions": b}, {"matchExpressions": [exists("c")]}]));
    for (old, new, allowed) in [
        (gated(none(), none()), gated(zone.clone(), none()), true),
        (gated(zone.clone(), none()), gated(both.clone(), none()), true),
        (gated(both.clone(), none()), gated(zone.clone(), none()), false),
        (gated(zone.clone(), none()), gated(json!({"zone": "y"}), none()), false),
        (gated(none(), none()), gated(none(), required(a.clone())), true),
        (gated(none(), required(a.clone())), gated(none(), narrow.clone()), true),
        (gated(none(), narrow.clone()), gated(none(), required(a.clone())), false),
        (gated(none(), required(a.clone())), gated(none(), other_term), false),
        (gated(none(), required(a.clone())), gated(none(), none()), false),
        (with(pod(), "/spec/nodeSelector", zone), with(pod(), "/spec/nodeSelector", both), false),
    ] {
        let errors = wrong_update(new.clone(), old.clone());
        assert_eq!(errors.is_empty(), allowed, "{old} {new} {errors:?}");
    }
}

#[test]
fn classes_of_service() {
    let one = json!({"cpu": "1", "memory": "1Gi"});
    let class = |resources: &Value, init: &Value| {
        let containers = json!([{"name": "a", "image": "img:1", "resources": resources}]);
        let init = json!([{"name": "i", "image": "img:1", "resources": init}]);
        let spec = json!({"containers": containers, "initContainers": init});
        crate::pod::qos_class(&serde_json::from_value(spec).unwrap())
    };
    for (resources, wanted) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "0", "example.com/gpu": "1"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": one}), "Guaranteed"),
        (json!({"limits": one, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed"),
        (json!({"limits": one, "requests": {"cpu": "500m"}}), "Burstable"),
    ] {
        assert_eq!(class(&resources, &resources), wanted, "{resources}");
    }
    assert_eq!(class(&json!({"limits": one}), &json!({})), "Burstable");
}

/// Init containers run one after the other, sidecars beside all that starts after them.
#[test]
fn what_pods_ask_for() {
    let asks = |init: &[(i64, bool)], overhead: &str| {
        let container = |(cpu, sidecar): &(i64, bool)| {
            json!({"name": "i", "resources": {"requests": {"cpu": cpu.to_string()}},
                "restartPolicy": sidecar.then_some("Always")})
        };
        let init: Value = init.iter().map(container).collect();
        let main = json!([{"name": "c", "resources": {"limits": {"cpu": "2"}}}]);
        let spec = json!({"initContainers": init, "containers": main,
            "overhead": {"cpu": overhead}});
        let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        crate::pod::requests(&pod).cpu_millis
    };
    assert_eq!(asks(&[], "0"), 2000);
    assert_eq!(asks(&[(1, false), (1, false)], "250m"), 2250);
    assert_eq!(asks(&[(3, false)], "0"), 3000);
    assert_eq!(asks(&[(1, true)], "0"), 3000);
    assert_eq!(asks(&[(4, false), (1, true), (1, false)], "0"), 4000);
    assert_eq!(asks(&[(1, true), (4, false), (1, true)], "0"), 5000);
}

/// Whoever gives up a lease leaves it without a holder.
#[test]
fn leases_may_have_no_holder() {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
    });
    assert_eq!(wrong(lease.clone()), Vec::<String>::new());
    let by = |strategy: &str| wrong(with(lease.clone(), "/spec/strategy", json!(strategy)));
    for strategy in ["OldestEmulationVersion", "example.com/Newest"] {
        assert_eq!(by(strategy), Vec::<String>::new());
    }
    assert!(by("Newest")[0].starts_with("spec.strategy: Unsupported value: \"Newest\""));
    assert!(by("/Newest")[0].starts_with("spec.strategy: Invalid value: \"/Newest\""));
}

#[test]
fn rows_of_pods() {
    let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    let mut value = ready(pod());
    value["metadata"]["creationTimestamp"] = json!("2026-01-01T00:05:00Z");
    value["status"] = json!({
        "phase": "Running", "podIP": "10.1.0.2",
        "containerStatuses": [{
            "name": "web", "image": "web", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:09:30Z"}},
        }],
    });
    let row = kinds::POD.row(&value, now);
    assert_eq!(row[..6], ["web", "0/1", "CrashLoopBackOff", "2 (30s ago)", "5m", "10.1.0.2"]);
    value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:30Z");
    assert_eq!(kinds::POD.row(&value, now)[2], "Terminating");
}

/// How long pods stay on a node that fails is the leader's setting; a toleration put in by
/// default would overrule it and delay every replacement by its 300 s.
#[test]
fn pods_get_no_tolerations_of_failing_nodes_by_default() {
    assert!(ready(pod())["spec"].get("tolerations").is_none());
}
