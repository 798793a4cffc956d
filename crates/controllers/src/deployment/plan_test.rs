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
fn the_present_set_hears_of_another_min_ready_seconds() {
    let old = deployment(3, "a", json!(null));
    let mut new = deployment(3, "b", json!(null));
    let sets = [set(&old, 0, 0, 0, 1), set(&new, 3, 3, 3, 2)];
    new.spec.min_ready_seconds = Some(5);
    let changes = plan(&Rollout::new(&new, &sets), false).changes;
    let [Change { set: changed, event: None }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((revision_of(changed), changed.spec.min_ready_seconds), (2, Some(5)));
    assert_eq!(replicas_of(changed), 3);
    let told = [Arc::clone(&sets[0]), Arc::new(changed.clone())];
    assert!(plan(&Rollout::new(&new, &told), false).changes.is_empty(), "once");
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

fn targets(plan: &Plan) -> Vec<i32> {
    plan.changes.iter().map(|change| replicas_of(&change.set)).collect()
}

/// The example of Kubernetes' documentation: 10 replicas, 3 more allowed, 2 fewer.
#[test]
fn a_change_of_replicas_during_a_rollout_is_spread() {
    let rolled = |replicas: i32| deployment(replicas, "b", rolling(json!(3), json!(2)));
    let before = deployment(10, "a", rolling(json!(3), json!(2)));
    let sets = [set(&before, 8, 8, 8, 1), set(&rolled(10), 5, 5, 0, 2)];
    let more = rolled(15);
    let grown = plan(&Rollout::new(&more, &sets), false);
    assert_eq!(targets(&grown), [11, 7], "old and new");
    assert!(grown.create.is_none());
    // Both know now, and the rollout goes on as before.
    let told: Vec<_> = grown.changes.into_iter().map(|change| Arc::new(change.set)).collect();
    assert!(!Rollout::new(&more, &told).is_scaled_on_the_way());
    assert_eq!(targets(&plan(&Rollout::new(&more, &told), false)), Vec::<i32>::new());
    // Pods that are still being taken away hold their places.
    let late = [set(&before, 8, 11, 8, 1), set(&rolled(10), 5, 5, 0, 2)];
    let room = targets(&plan(&Rollout::new(&more, &late), false));
    assert_eq!(room.iter().sum::<i32>(), 15, "{room:?}: 3 of 18 places are not free yet");
    let fewer = rolled(5);
    let shrunk = plan(&Rollout::new(&fewer, &sets), false);
    assert_eq!(targets(&shrunk), [5, 3]);
    assert_eq!(targets(&plan(&Rollout::new(&rolled(0), &sets), false)), [0, 0]);
}

/// A set that was scaled up and down again may have pods that it has not counted yet, and one that
/// was scaled down and up again counts some that are gone.
#[test]
fn nothing_is_added_or_taken_while_a_set_has_not_counted_since_it_was_scaled() {
    let old = deployment(4, "a", rolling(json!(1), json!(1)));
    let new = deployment(4, "b", rolling(json!(1), json!(1)));
    let counted = |generation: i64, observed: i64| {
        let mut old = ReplicaSet::clone(&set(&old, 2, 2, 2, 1));
        old.metadata.generation = Some(generation);
        old.status.as_mut().unwrap().observed_generation = Some(observed);
        let sets = [Arc::new(old), set(&new, 2, 2, 2, 2)];
        plan(&Rollout::new(&new, &sets), false)
    };
    let target = |plan: &Plan, revision: i64| {
        let changed = plan.changes.iter().find(|c| revision_of(&c.set) == revision);
        changed.map(|change| replicas_of(&change.set))
    };
    let (old, new) = (1, 2);
    assert_eq!(target(&counted(3, 3), new), Some(3));
    assert_eq!(target(&counted(3, 2), new), None);
    assert_eq!(target(&counted(3, 3), old), Some(1));
    assert_eq!(target(&counted(3, 2), old), None);
}

/// Taking away by size alone would leave too few pods that work.
#[test]
fn scaling_down_during_a_rollout_keeps_what_must_be_available() {
    let before = deployment(10, "a", rolling(json!(0), json!(6)));
    let rolled = |replicas: i32| deployment(replicas, "b", rolling(json!(0), json!(1)));
    let sets = [set(&before, 4, 4, 4, 1), set(&rolled(10), 6, 6, 0, 2)];
    let fewer = rolled(5);
    let kept = targets(&plan(&Rollout::new(&fewer, &sets), false));
    assert_eq!(kept, [3, 4], "of the new set, and none of the old");
}

#[test]
fn a_paused_rollout_is_scaled_in_proportion() {
    let before = deployment(10, "a", rolling(json!(3), json!(2)));
    let sets = [
        set(&before, 8, 8, 8, 1),
        set(&deployment(10, "b", rolling(json!(3), json!(2))), 5, 5, 0, 2),
    ];
    let mut paused = deployment(15, "b", rolling(json!(3), json!(2)));
    paused.spec.paused = Some(true);
    assert_eq!(targets(&plan(&Rollout::new(&paused, &sets), false)), [11, 7]);
    paused.spec.replicas = Some(10);
    assert_eq!(targets(&plan(&Rollout::new(&paused, &sets), false)), Vec::<i32>::new());
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
        scaled in 1..12_i32,
        scaled_after in 0..300_usize,
        surge in 0..4_i32,
        unavailable in 0..4_i32,
        luck in prop::collection::vec(any::<u8>(), 4000),
    ) {
        let strategy = rolling(json!(surge), json!(unavailable));
        let old = deployment(replicas, "a", strategy.clone());
        let mut new = deployment(replicas, "b", strategy);
        let mut sets = vec![set(&old, replicas, replicas, replicas, 1)];
        // The pods as they are; the sets' statuses follow them late.
        let mut pods = vec![(replicas, replicas)];
        let mut least = replicas - Rollout::new(&new, &sets).unavailable;
        let mut most = replicas + Rollout::new(&new, &sets).surge;
        let mut luck = luck.into_iter().enumerate();
        let done = loop {
            let Some((time, roll)) = luck.next() else { break false };
            if time == scaled_after {
                // Between the old and the new size the looser of their bounds holds.
                new.spec.replicas = Some(scaled);
                let rollout = Rollout::new(&new, &sets);
                least = least.min(scaled - rollout.unavailable);
                most = most.max(scaled + rollout.surge);
            }
            let replicas = new.spec.replicas.unwrap();
            let at = usize::from(roll / 4) % sets.len();
            let wanted = replicas_of(&sets[at]);
            match roll % 4 {
                0 => {
                    let plan = plan(&Rollout::new(&new, &sets), false);
                    for Change { mut set, .. } in plan.changes {
                        let name = &set.metadata.name;
                        let at = sets.iter().position(|s| s.metadata.name == *name).unwrap();
                        set.metadata.generation = Some(1 + generation(&sets[at]));
                        sets[at] = Arc::new(set);
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
                    status.observed_generation = sets[at].metadata.generation;
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

fn generation(set: &ReplicaSet) -> i64 {
    set.metadata.generation.unwrap_or_default()
}

fn replicas_of(set: &ReplicaSet) -> i32 {
    replicas(set)
}
