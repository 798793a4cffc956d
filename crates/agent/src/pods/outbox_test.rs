#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn pod(uid: &str) -> PodRef {
    PodRef { namespace: "d".into(), name: uid.into(), uid: uid.into() }
}

fn status(phase: &str) -> PodStatus {
    PodStatus { phase: Some(phase.into()), ..Default::default() }
}

#[test]
fn a_change_is_sent_until_it_is_acknowledged() {
    let outbox = Outbox::default();
    assert!(outbox.batch().is_none());
    outbox.put(&pod("1"), &status("Pending"), false);
    let lost = outbox.batch().unwrap();
    assert_eq!(lost.pods.len(), 1);
    let again = outbox.batch().unwrap();
    // It changed while it was under way: the acknowledgement is for the old one.
    outbox.put(&pod("1"), &status("Running"), false);
    outbox.acknowledge(&again, &[]);
    let newer = outbox.batch().unwrap();
    outbox.acknowledge(&newer, &["1".into()]);
    assert!(outbox.batch().is_some(), "the leader asked for it again");
    outbox.acknowledge(&newer, &[]);
    assert!(outbox.batch().is_none());
    outbox.put(&pod("1"), &status("Running"), false);
    assert!(outbox.batch().is_none(), "nothing changed");
}

#[test]
fn events_and_removed_volumes_are_sent_until_they_are_acknowledged() {
    let outbox = Outbox::default();
    let event = |reason: &str| v1::PodEvent { reason: reason.into(), ..Default::default() };
    outbox.removed(v1::RemovedVolume { name: "v".into(), uid: "1".into() });
    outbox.record(event("Pulled"));
    let batch = outbox.batch().unwrap();
    outbox.record(event("Created"));
    outbox.acknowledge(&batch, &["1".into()]);
    let next = outbox.batch().unwrap();
    assert_eq!((next.removed.len(), next.events.len()), (1, 1));
    assert_eq!(next.events[0].reason, "Created");
    outbox.acknowledge(&next, &[]);
    assert!(outbox.batch().is_none());
    for number in 0..2 * EVENTS {
        outbox.record(event(&number.to_string()));
    }
    let batch = outbox.batch().unwrap();
    assert_eq!(batch.events[0].reason, EVENTS.to_string(), "the oldest give way");
    outbox.record(event("last"));
    outbox.acknowledge(&batch, &[]);
    assert_eq!(outbox.batch().unwrap().events.len(), 1);
}

#[test]
fn what_a_leader_does_not_know_is_said_again() {
    let outbox = Outbox::default();
    outbox.put(&pod("1"), &status("Running"), false);
    outbox.acknowledge(&outbox.batch().unwrap(), &[]);
    outbox.compare("1", Some(&status("Running")));
    assert!(outbox.batch().is_none());
    let mut gated = status("Running");
    gated.conditions =
        serde_json::from_value(serde_json::json!([{"type": "example.org/open", "status": "True"}]))
            .unwrap();
    outbox.put(&pod("1"), &PodStatus { conditions: Some(Vec::new()), ..status("Running") }, false);
    outbox.acknowledge(&outbox.batch().unwrap(), &[]);
    outbox.compare("1", Some(&gated));
    assert!(outbox.batch().is_none(), "what others have said is not ours to say");
    outbox.compare("1", Some(&status("Pending")));
    assert!(outbox.batch().is_some());
    outbox.forget("1");
    assert!(outbox.batch().is_none());
}
