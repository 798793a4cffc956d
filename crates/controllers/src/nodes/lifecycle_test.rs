#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn tainted(taints: serde_json::Value) -> Node {
    serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}})).unwrap()
}

fn effects(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
    taints.map(|taints| taints.into_iter().map(|t| format!("{}:{}", t.key, t.effect)).collect())
}

#[test]
fn taints_follow_the_verdict_and_leave_others_alone() {
    let own = json!({"key": "gpu", "effect": "NoSchedule"});
    let lost = |effect: &str| json!({"key": UNREACHABLE, "effect": effect, "timeAdded": "2026-01-01T00:00:00Z"});
    let alive = tainted(json!([own]));
    assert_eq!(effects(taints(&alive, Verdict::Alive)), None);
    let text = |effect: &str| format!("{UNREACHABLE}:{effect}");
    assert_eq!(
        effects(taints(&alive, Verdict::Silent)).unwrap(),
        ["gpu:NoSchedule".to_owned(), text("NoSchedule"), text("NoExecute")]
    );
    assert_eq!(
        effects(taints(&alive, Verdict::NotNow)).unwrap(),
        ["gpu:NoSchedule".to_owned(), text("NoSchedule")]
    );
    let silent = tainted(json!([own, lost("NoSchedule"), lost("NoExecute")]));
    assert_eq!(effects(taints(&silent, Verdict::Silent)), None);
    assert_eq!(effects(taints(&silent, Verdict::Alive)).unwrap(), ["gpu:NoSchedule"]);
    // The time of a taint that stays is kept: evictions count from it.
    let half = tainted(json!([lost("NoSchedule")]));
    let grown = taints(&half, Verdict::Silent).unwrap();
    assert_eq!(grown[0].time_added, half.spec.unwrap().taints.unwrap()[0].time_added);
}

#[test]
fn the_condition_changes_only_with_the_verdict() {
    let unknown = tainted(json!([]));
    assert_eq!(condition(&unknown, Verdict::Alive).unwrap().status, "True");
    assert_eq!(condition(&unknown, Verdict::Silent).unwrap().status, "Unknown");
    let mut ready = unknown;
    ready.status.get_or_insert_default().conditions =
        condition(&ready.clone(), Verdict::Alive).map(|c| vec![c]);
    assert_eq!(condition(&ready, Verdict::Alive), None);
}

#[test]
fn a_node_without_engine_or_pod_network_gets_no_pods() {
    let with = |kind: &str, status: &str| -> Node {
        let conditions = json!([{"type": kind, "status": status}]);
        serde_json::from_value(
            json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    };
    let broken = with(RUNTIME_READY, "False");
    assert_eq!(condition(&broken, Verdict::Broken).unwrap().status, "False");
    assert_eq!(
        effects(taints(&broken, Verdict::Broken)).unwrap(),
        [format!("{NOT_READY}:NoSchedule"), format!("{NOT_READY}:NoExecute")]
    );
    let mut cut = with(NETWORK_UNAVAILABLE, "True");
    let wanted = taints(&cut, Verdict::Alive);
    assert_eq!(effects(wanted.clone()).unwrap(), [format!("{NO_NETWORK}:NoSchedule")]);
    cut.spec.get_or_insert_default().taints = wanted;
    assert_eq!(effects(taints(&cut, Verdict::Alive)), None);
    cut.status = with(NETWORK_UNAVAILABLE, "False").status;
    assert_eq!(effects(taints(&cut, Verdict::Alive)).unwrap(), [""; 0]);
}

#[test]
fn a_failure_that_spreads_is_slowed_down() {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let lost = |at: &str| {
        let taint = json!({"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": at});
        Arc::new(tainted(json!([taint])))
    };
    let alive = || Arc::new(tainted(json!([])));
    let nodes = |lost: Vec<Arc<Node>>, alive_too: usize| {
        lost.into_iter().chain((0..alive_too).map(|_| alive())).collect::<Vec<_>>()
    };
    let recent = |count: usize| (0..count).map(|_| lost("2026-01-01T00:00:55Z")).collect();
    assert!(!enough_for_now(&nodes(recent(2), 8), now), "a few never wait");
    assert!(enough_for_now(&nodes(recent(3), 7), now));
    assert!(!enough_for_now(&nodes(recent(9), 91), now), "a tenth of all");
    let before = (0..9).map(|_| lost("2026-01-01T00:00:45Z")).collect();
    assert!(!enough_for_now(&nodes(before, 7), now), "that was before");
}

#[test]
fn a_clock_that_was_turned_back_keeps_no_dead_node_waiting() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let taint =
        json!({"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T01:00:00Z"});
    let nodes: Vec<_> = (0..10).map(|_| Arc::new(tainted(json!([taint])))).collect();
    assert!(!enough_for_now(&nodes, now), "they were not tainted within the last seconds");
}

#[test]
fn a_deaf_leader_gives_way_to_a_master_that_hears_most_nodes() {
    assert_eq!(successor(4, 3, vec![(7, 1), (8, 3)]), Some(8));
    assert_eq!(successor(1, 1, vec![(7, 1)]), Some(7));
    assert_eq!(successor(4, 2, vec![(7, 4)]), None, "it hears half of them");
    assert_eq!(successor(4, 4, vec![(7, 0), (8, 2)]), None, "they hear no more than it does");
    assert_eq!(successor(4, 4, vec![]), None, "nobody else answers");
}

/// There may be thousands of them, and each is looked at whenever it changes.
#[tokio::test]
async fn a_node_that_is_heard_is_judged_without_a_look_at_all_others() {
    let cluster = crate::fake::Cluster::new(0).await;
    let context = Arc::new(Context::new(cluster.registry.clone(), 1, "test"));
    let lifecycle = NodeLifecycle::new(context, Duration::from_secs(3600));
    let all = || -> Situation { panic!("it looks at all nodes") };
    let verdict = lifecycle.verdict(&tainted(json!([])), all, Instant::now());
    assert_eq!(verdict, Verdict::Alive);
}
