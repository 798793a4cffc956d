//! Leases and alarms, through the public face of the state machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::semantics_test::Rig;
use crate::backend::Space;
use crate::command::*;
use crate::contract::WatchRequest;
use crate::types::*;

fn grant(id: LeaseId) -> Command {
    CommandKind::LeaseGrant(LeaseGrantRequest { id, ttl_seconds: 10 }).into()
}

fn revoke(id: LeaseId) -> Command {
    CommandKind::LeaseRevoke(LeaseRevokeRequest { id }).into()
}

fn alarm(member: MemberId, kind: AlarmKind, active: bool) -> Command {
    let alarm = Alarm { member, kind: kind.into() };
    CommandKind::Alarm(AlarmRequest { alarm, active }).into()
}

fn put(key: &'static str, lease: LeaseId) -> TxnRequest {
    let put = PutRequest { key: key.into(), lease, ..PutRequest::default() };
    TxnRequest { success: vec![Op::Put(put).into()], ..TxnRequest::default() }
}

/// The keys attached to a lease; those of no lease must not be counted anywhere.
fn attached(rig: &Rig, lease: LeaseId) -> Vec<String> {
    let keys = rig.machine.lease_keys(lease).unwrap();
    keys.into_iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
}

#[test]
fn the_end_of_a_lease_deletes_its_keys_at_one_revision() {
    let mut rig = Rig::new();
    assert_eq!(rig.command(grant(7)).rejection, None);
    assert_eq!(rig.command(grant(7)).rejection, Some(Rejection::LeaseExists(7)));
    rig.command(grant(8));
    for (key, lease) in [("a", 7), ("b", 7), ("c", 8), ("d", 0)] {
        assert_eq!(rig.command(put(key, lease)).rejection, None);
    }
    let before = rig.machine.revision();
    let request = WatchRequest { range: KeyRange::all(), prev_kv: true, ..Default::default() };
    let mut watcher = rig.machine.hub().watch(request).unwrap();
    let result = rig.command(revoke(7));
    assert_eq!((result.rejection, result.revision), (None, before + 1));
    let events = watcher.try_next().unwrap().unwrap().events;
    let gone: Vec<_> = events.iter().map(|e| (e.kind, &e.kv.key[..], e.kv.mod_revision)).collect();
    assert_eq!(
        gone,
        [(EventType::Delete, &b"a"[..], before + 1), (EventType::Delete, &b"b"[..], before + 1)]
    );
    assert_eq!(events[0].prev_kv.as_ref().unwrap().lease, 7);
    assert_eq!(rig.command(revoke(7)).rejection, Some(Rejection::LeaseNotFound(7)));
    assert_eq!(rig.command(put("a", 7)).rejection, Some(Rejection::LeaseNotFound(7)));
    assert_eq!(rig.machine.lessor().ids(), [8]);
    // A lease without keys changes nothing that can be seen.
    rig.command(TxnRequest::delete(KeyRange::all()));
    let at = rig.machine.revision();
    assert_eq!(rig.command(revoke(8)).revision, at);
    let left = rig.machine.backend().dump();
    assert!(left.iter().all(|(space, ..)| *space != Space::Leases), "nothing of it stays");
}

#[test]
fn a_put_moves_its_key_from_lease_to_lease() {
    let mut rig = Rig::new();
    rig.command(grant(7));
    rig.command(grant(8));
    rig.command(put("a", 7));
    rig.command(put("ab", 7));
    assert_eq!(attached(&rig, 7), ["a", "ab"]);
    rig.command(put("a", 8));
    assert_eq!((attached(&rig, 7), attached(&rig, 8)), (vec!["ab".into()], vec!["a".into()]));
    let keep = PutRequest { key: "a".into(), ignore_lease: true, ..PutRequest::default() };
    let success = vec![Op::Put(keep).into()];
    rig.command(TxnRequest { success, ..TxnRequest::default() });
    assert_eq!(attached(&rig, 8), ["a"]);
    rig.command(put("a", 0));
    assert_eq!(attached(&rig, 8), Vec::<String>::new());
    rig.command(TxnRequest::delete(KeyRange::single("ab")));
    assert_eq!(attached(&rig, 7), Vec::<String>::new());
    // Put again without a lease: it must survive the end of the old one.
    rig.command(put("ab", 0));
    let at = rig.machine.revision();
    assert_eq!(rig.command(revoke(7)).revision, at);
}

#[test]
fn negative_ids_and_neighbours_are_told_apart() {
    let mut rig = Rig::new();
    for id in [-1, 1, 256, i64::MAX, i64::MIN] {
        assert_eq!(rig.command(grant(id)).rejection, None);
        rig.command(put(Box::leak(format!("k{id}").into_boxed_str()), id));
    }
    for id in [-1, 1, 256, i64::MAX, i64::MIN] {
        assert_eq!(attached(&rig, id), [format!("k{id}")]);
    }
    assert!(matches!(rig.command(grant(0)).rejection, Some(Rejection::Invalid(_))));
    for ttl_seconds in [0, -1, crate::MAX_LEASE_TTL + 1] {
        let request = LeaseGrantRequest { id: 99, ttl_seconds };
        let result = rig.command(CommandKind::LeaseGrant(request));
        assert!(matches!(result.rejection, Some(Rejection::Invalid(_))), "{ttl_seconds}");
    }
}

#[test]
fn without_space_deletions_and_compaction_go_on() {
    let mut rig = Rig::new();
    rig.command(grant(7));
    rig.command(put("a", 7));
    rig.command(put("b", 0));
    rig.command(alarm(3, AlarmKind::NoSpace, true));
    rig.command(alarm(3, AlarmKind::NoSpace, true));
    rig.command(alarm(2, AlarmKind::Corrupt, true));
    let on = rig.machine.alarms();
    let kinds: Vec<_> = on.borrow().iter().map(|alarm| (alarm.member, alarm.kind())).collect();
    assert_eq!(kinds, [(2, AlarmKind::Corrupt), (3, AlarmKind::NoSpace)]);
    let full = Some(Rejection::NoSpace(3));
    assert_eq!(rig.command(put("c", 0)).rejection, full);
    assert_eq!(rig.command(grant(8)).rejection, full);
    let nested = Op::Txn(TxnRequest { failure: put("c", 0).success, ..TxnRequest::default() });
    let nested = TxnRequest { success: vec![nested.into()], ..TxnRequest::default() };
    assert_eq!(rig.command(nested).rejection, full);
    assert_eq!(rig.command(TxnRequest::delete(KeyRange::single("b"))).rejection, None);
    assert_eq!(rig.command(revoke(7)).rejection, None);
    let revision = rig.machine.revision();
    let compact = CommandKind::Compact(CompactRequest { revision });
    assert_eq!(rig.command(compact).rejection, None);
    rig.command(alarm(3, AlarmKind::NoSpace, false));
    assert_eq!(rig.command(put("c", 0)).rejection, None);
    // They are part of the state.
    let reopened = super::StateMachine::open(rig.machine.backend().clone(), 0).unwrap();
    assert_eq!(reopened.alarms().borrow().len(), 1);
}

#[test]
fn the_hash_of_history_does_not_see_how_far_compaction_has_come() {
    let (mut ahead, mut behind) = (Rig::new(), Rig::new());
    for rig in [&mut ahead, &mut behind] {
        for round in 0..3 {
            for key in ["a", "b", "c"] {
                rig.command(put(key, 0));
            }
            rig.command(TxnRequest::delete(KeyRange::single(["a", "b", "x"][round])));
        }
        let many = (0..100).map(|n| {
            let key = format!("k{n:03}").into();
            Op::Put(PutRequest { key, ..PutRequest::default() }).into()
        });
        let many = TxnRequest { success: many.collect(), ..TxnRequest::default() };
        for _ in 0..4 {
            rig.command(many.clone());
        }
    }
    let before = behind.machine.hash_kv(9).unwrap();
    assert_eq!(ahead.machine.hash_kv(9), Ok(before));
    let revision = ahead.machine.revision();
    for rig in [&mut ahead, &mut behind] {
        rig.command(CommandKind::Compact(CompactRequest { revision: revision - 1 }));
    }
    while ahead.machine.compacting() {
        ahead.blank(1);
    }
    assert!(behind.machine.compacting());
    let hash = ahead.machine.hash_kv(0).unwrap();
    assert_eq!(behind.machine.hash_kv(revision), Ok(hash));
    assert_eq!((hash.revision, hash.compact_revision), (revision, revision - 1));
    assert_ne!(hash.hash, ahead.machine.hash_kv(revision - 1).unwrap().hash);
    // A value that differs is seen.
    behind.command(put("a", 0));
    ahead.command(TxnRequest::put("a", "other"));
    assert_ne!(ahead.machine.hash_kv(0).unwrap().hash, behind.machine.hash_kv(0).unwrap().hash);
}
