use super::*;

fn told() -> v1::ExplainResponse {
    let part = |name: &str, points| v1::SchedulingScorePart { name: name.into(), points };
    let score = |node: &str, spread| v1::SchedulingScore {
        node: node.into(),
        total: spread + 40,
        parts: vec![part("NodeAffinity", 0), part("ReplicaSpread", spread), part("Balance", 40)],
    };
    v1::ExplainResponse {
        namespace: "default".into(),
        name: "web".into(),
        uid: "u".into(),
        term: 3,
        decided_at_ms: Some(1_000),
        decision: Some(v1::SchedulingDecision {
            node: "n2".into(),
            nodes: 3,
            examined: 3,
            feasible: 2,
            removed: vec![v1::SchedulingFilter {
                filter: "TaintToleration".into(),
                nodes: 1,
                examples: vec!["n3".into()],
            }],
            scores: vec![score("n2", 1_000), score("n1", 0)],
            ..Default::default()
        }),
        history: vec![v1::SchedulingHappening {
            first_ms: 0,
            last_ms: 1_000,
            count: 2,
            what: "assigned to n2".into(),
        }],
    }
}

fn known(pod: Option<Value>, told: Option<v1::ExplainResponse>) -> Known {
    let event = json!({"reason": "Preempted", "message": "Preempted by default/big on node n2",
                       "count": 1, "lastTimestamp": "1970-01-01T00:00:05Z"});
    Known { namespace: "default".into(), name: "web".into(), pod, told, events: vec![event] }
}

#[test]
fn a_running_pod() {
    let pod = json!({"spec": {"nodeName": "n2"}, "status": {"phase": "Running"}});
    let now = Timestamp::from_millisecond(61_000).expect("a time");
    let words = known(Some(pod), Some(told())).words(now);
    for line in [
        "Status:                 Running",
        "Decided:                60s ago, in term 3",
        "Nodes:                  3 in the cluster, 3 looked at, 2 would do",
        "  TaintToleration   1       n3",
        "  NODE   TOTAL   ReplicaSpread   Balance",
        "  n2     1040    1000            40",
        "  60s    2       assigned to n2",
        "  56s    1       Preempted   Preempted by default/big on node n2",
    ] {
        assert!(words.lines().any(|l| l == line), "{line:?} is not in\n{words}");
    }
}

#[test]
fn a_pod_that_is_gone_and_whose_record_is_gone() {
    let words = known(None, None).words(Timestamp::UNIX_EPOCH);
    assert!(words.contains("Status:                 gone"), "{words}");
    assert!(words.contains("Preempted by default/big"), "{words}");
    let mut told = told();
    told.decided_at_ms = None;
    let known = known(None, Some(told));
    assert!(known.words(Timestamp::UNIX_EPOCH).contains("no record of the decision"));
    assert_eq!(known.json()["recorded"], json!(false));
    assert_eq!(known.json()["decision"]["scores"][0]["parts"]["ReplicaSpread"], json!(1_000));
}
