#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d"},
        "spec": {
            "replicas": replicas,
            "strategy": strategy,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }))
    .unwrap()
}

fn set(
    deployment: &Deployment,
    replicas: i32,
    present: i32,
    available: i32,
    revision: i64,
) -> Arc<ReplicaSet> {
    let mut set = new_set(deployment, replicas, revision);
    set.metadata.uid = set.metadata.name.clone();
    set.status = Some(k8s_openapi::api::apps::v1::ReplicaSetStatus {
        replicas: present,
        available_replicas: Some(available),
        ..Default::default()
    });
    Arc::new(set)
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailable() {
    for (replicas, surge, unavailable, expected) in [
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (3, json!(0), json!("25%"), (0, 1)),
        (3, json!(2), json!(9), (2, 3)),
    ] {
        let d = deployment(replicas, "a", rolling(surge, unavailable));
        let rollout = Rollout::new(&d, &[]);
        assert_eq!((rollout.surge, rollout.unavailable), expected, "{replicas}");
    }
}

#[test]
fn the_first_set_and_a_rollback() {
    let old = deployment(3, "a", json!(null));
    let new = deployment(3, "b", json!(null));
    let first = plan(&Rollout::new(&old, &[]), false);
    let created = first.create.unwrap();
    assert_eq!((created.spec.replicas, first.revision), (Some(3), Some(1)));
    let sets = [set(&old, 0, 0, 0, 1), set(&new, 3, 3, 3, 2)];
    let back = Rollout::new(&old, &sets);
    assert_eq!(back.new.as_ref().unwrap().metadata.name, created.metadata.name);
    let plan = plan(&back, false);
    assert!(plan.create.is_none());
    assert_eq!(plan.revision, Some(3));
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let old = deployment(3, "a", json!({"type": "Recreate"}));
    let new = deployment(3, "b", json!({"type": "Recreate"}));
    let first = plan(&Rollout::new(&new, &[set(&old, 3, 3, 3, 1)]), true);
    assert_eq!(first.changes[0].set.spec.replicas, Some(0));
    assert!(first.create.is_none());
    let sets = [set(&old, 0, 0, 0, 1)];
    assert!(plan(&Rollout::new(&new, &sets), true).create.is_none(), "one still stops");
    assert!(plan(&Rollout::new(&new, &sets), false).create.is_some());
}

#[test]
fn paused_is_scaled_but_not_rolled_out() {
    let old = deployment(3, "a", json!(null));
    let mut new = deployment(5, "b", json!(null));
    new.spec.paused = Some(true);
    let plan = plan(&Rollout::new(&new, &[set(&old, 3, 3, 3, 1)]), false);
    assert!(plan.create.is_none());
    assert_eq!(plan.changes[0].set.spec.replicas, Some(5));
}

#[test]
fn history_is_limited() {
    let mut d = deployment(1, "z", json!(null));
    d.spec.revision_history_limit = Some(2);
    let mut sets: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .zip(1..)
        .map(|(image, revision)| set(&deployment(1, image, json!(null)), 0, 0, 0, revision))
        .collect();
    sets.push(set(&d, 1, 1, 1, 5));
    let plan = plan(&Rollout::new(&d, &sets), false);
    let removed: Vec<_> = plan.remove.iter().map(|set| revision_of(set)).collect();
    assert_eq!(removed, [1, 2]);
}

proptest! {
    /// Whatever order things happen in, the bounds hold and the rollout ends.
    #[test]
    fn bounds_hold_at_every_step(
        replicas in 1..12_i32,
        surge in 0..4_i32,
        unavailable in 0..4_i32,
        luck in prop::collection::vec(any::<u8>(), 4000),
    ) {
        let strategy = rolling(json!(surge), json!(unavailable));
        let old = deployment(replicas, "a", strategy.clone());
        let new = deployment(replicas, "b", strategy);
        let mut sets = vec![set(&old, replicas, replicas, replicas, 1)];
        // The pods as they are; the sets' statuses follow them late.
        let mut pods = vec![(replicas, replicas)];
        let least = replicas - Rollout::new(&new, &sets).unavailable;
        let most = replicas + Rollout::new(&new, &sets).surge;
        let mut luck = luck.into_iter();
        let done = loop {
            let Some(roll) = luck.next() else { break false };
            let at = usize::from(roll / 4) % sets.len();
            let wanted = replicas_of(&sets[at]);
            match roll % 4 {
                0 => {
                    let plan = plan(&Rollout::new(&new, &sets), false);
                    for change in plan.changes {
                        let name = &change.set.metadata.name;
                        let at = sets.iter().position(|s| s.metadata.name == *name).unwrap();
                        sets[at] = Arc::new(change.set);
                    }
                    if let Some(mut created) = plan.create {
                        created.metadata.uid = created.metadata.name.clone();
                        sets.push(Arc::new(created));
                        pods.push((0, 0));
                    }
                }
                // The set's controller creates or deletes pods, those that are not ready first.
                1 if pods[at].0 < wanted => pods[at].0 += 1,
                1 if pods[at].0 > wanted => pods[at] = (wanted, pods[at].1.min(wanted)),
                // A pod becomes available.
                2 if pods[at].1 < pods[at].0 => pods[at].1 += 1,
                // The set's status is brought up to date.
                3 => {
                    let mut updated = ReplicaSet::clone(&sets[at]);
                    let status = updated.status.get_or_insert_default();
                    status.replicas = pods[at].0;
                    status.available_replicas = Some(pods[at].1);
                    sets[at] = Arc::new(updated);
                }
                _ => {}
            }
            let total: i32 = pods.iter().map(|p| p.0).sum();
            let available: i32 = pods.iter().map(|p| p.1).sum();
            prop_assert!(total <= most, "{total} pods, at most {most}: {pods:?}");
            prop_assert!(available >= least, "{available} available, at least {least}: {pods:?}");
            if pods.len() == 2 && pods[0] == (0, 0) && pods[1] == (replicas, replicas) {
                break true;
            }
        };
        prop_assert!(done, "the rollout ends: {pods:?}");
    }
}

fn replicas_of(set: &ReplicaSet) -> i32 {
    replicas(set)
}
