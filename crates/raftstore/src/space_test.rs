#![allow(clippy::unwrap_used, clippy::expect_used)]

use quorate_store::{CommandKind, KeyRange, LeaseGrantRequest, TxnRequest};

use super::*;

#[test]
fn pressure_grows_with_the_size_and_with_a_full_disk() {
    let of = |bytes, free| Pressure::of(bytes, 1000, free, 10);
    assert_eq!(
        [of(0, 99), of(799, 99), of(800, 99)],
        [Pressure::Low, Pressure::Low, Pressure::None]
    );
    assert_eq!(
        [of(899, 99), of(900, 99), of(999, 99)],
        [Pressure::None, Pressure::Events, Pressure::Events]
    );
    assert_eq!(
        [of(1000, 99), of(0, 9), of(0, 19)],
        [Pressure::Full, Pressure::Full, Pressure::None]
    );
}

#[test]
fn events_are_refused_first_and_deletions_never() {
    let room = Room::default();
    let event: Command = TxnRequest::put("/registry/events/default/x", "v").into();
    let nested = Op::Txn(TxnRequest::put("/registry/events/default/x", "v")).into();
    let nested: Command = TxnRequest { failure: vec![nested], ..TxnRequest::default() }.into();
    let pod: Command = TxnRequest::put("/registry/pods/default/x", "v").into();
    let lease = CommandKind::LeaseGrant(LeaseGrantRequest { id: 1, ttl_seconds: 1 }).into();
    let delete: Command = TxnRequest::delete(KeyRange::prefix("/registry/events/")).into();
    let taken = |command| room.check(command).is_ok();
    room.set(Pressure::None);
    assert!(taken(&event) && taken(&nested) && taken(&pod) && taken(&lease) && taken(&delete));
    room.set(Pressure::Events);
    assert!(!taken(&event) && !taken(&nested) && taken(&pod) && taken(&lease) && taken(&delete));
    room.set(Pressure::Full);
    assert!(!taken(&event) && !taken(&nested) && !taken(&pod) && !taken(&lease) && taken(&delete));
}
