//! The roles and bindings that every cluster has, as users of Kubernetes know them.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io/v1";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

/// What can be seen in a namespace, but for secrets, roles and bindings.
const VIEWED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "podtemplates",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ("metrics.k8s.io", &["pods"]),
    ("quorate.dev", &["decisions"]),
];

/// What can be changed in a namespace by whoever works in it.
const EDITED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "pods/attach",
            "pods/ephemeralcontainers",
            "pods/eviction",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "podtemplates",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "services",
            "services/proxy",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("coordination.k8s.io", &["leases"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

fn rules(table: &[(&str, &[&str])], verbs: &[&str]) -> Vec<Value> {
    let rule = |(group, resources): &(&str, &[&str])| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    table.iter().map(rule).collect()
}

fn role(name: &str, rules: Vec<Value>, labels: &[&str]) -> Value {
    let mut value = json!({
        "apiVersion": GROUP, "kind": "ClusterRole",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": rules,
    });
    for label in labels {
        value["metadata"]["labels"][format!("rbac.authorization.k8s.io/{label}")] = "true".into();
    }
    value
}

fn aggregate(name: &str, label: &str, labels: &[&str]) -> Value {
    let mut value = role(name, Vec::new(), labels);
    let selector = json!({"matchLabels": {format!("rbac.authorization.k8s.io/{label}"): "true"}});
    value["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
    value
}

fn binding(name: &str, role: &str, groups: &[&str]) -> Value {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|group| {
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group})
        })
        .collect();
    json!({
        "apiVersion": GROUP, "kind": "ClusterRoleBinding",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
        },
        "subjects": subjects,
    })
}

/// All of them; roles before the bindings that name them.
pub(crate) fn all() -> Vec<Value> {
    let mut to_edit = rules(EDITED, &WRITE);
    to_edit.push(json!({
        "apiGroups": [""], "resources": ["secrets", "pods/attach", "pods/exec", "pods/portforward"],
        "verbs": READ,
    }));
    to_edit.push(json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": READ,
    }));
    to_edit.push(json!({
        "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"],
    }));
    let all_verbs = [READ.as_slice(), &WRITE].concat();
    let mut to_admin = vec![json!({
        "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"],
        "verbs": all_verbs,
    })];
    to_admin.push(json!({
        "apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"],
        "verbs": ["create"],
    }));
    let everything = vec![
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
    ];
    let reviews = vec![
        json!({
            "apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        }),
        json!({
            "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"],
            "verbs": ["create"],
        }),
    ];
    let delegated = vec![
        json!({
            "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"],
            "verbs": ["create"],
        }),
        json!({
            "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"],
            "verbs": ["create"],
        }),
    ];
    let paths = |paths: &[&str]| vec![json!({"nonResourceURLs": paths, "verbs": ["get"]})];
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
        "/",
    ];
    let public = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    vec![
        role("cluster-admin", everything, &[]),
        aggregate("admin", "aggregate-to-admin", &[]),
        aggregate("edit", "aggregate-to-edit", &["aggregate-to-admin"]),
        aggregate("view", "aggregate-to-view", &["aggregate-to-edit"]),
        role("system:aggregate-to-admin", to_admin, &["aggregate-to-admin"]),
        role("system:aggregate-to-edit", to_edit, &["aggregate-to-edit"]),
        role("system:aggregate-to-view", rules(VIEWED, &READ), &["aggregate-to-view"]),
        role("system:auth-delegator", delegated, &[]),
        role("system:basic-user", reviews, &[]),
        role("system:discovery", paths(&discovery), &[]),
        role("system:monitoring", paths(&["/metrics", "/metrics/*"]), &[]),
        role("system:public-info-viewer", paths(&public), &[]),
        binding("cluster-admin", "cluster-admin", &["system:masters"]),
        binding("system:basic-user", "system:basic-user", &["system:authenticated"]),
        binding("system:discovery", "system:discovery", &["system:authenticated"]),
        binding("system:monitoring", "system:monitoring", &["system:monitoring"]),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &["system:authenticated", "system:unauthenticated"],
        ),
    ]
}
