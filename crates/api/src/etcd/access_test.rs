#![allow(clippy::unwrap_used)]

use quorate_store::KeyRange;

use super::{Guard, Rights, Standing};

fn guard(standing: Standing) -> Guard {
    Guard { standing, rights: Rights::All }
}

fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
    KeyRange { key: key.into(), end: end.into() }
}

#[test]
fn objects_are_written_by_admins_only() {
    let (user, admin) = (guard(Standing::Local), guard(Standing::Admin));
    for key in [&b"/registry/pods/a"[..], b"/registry/", b"/registry-alloc/a"] {
        assert!(user.write(key).is_err());
        admin.write(key).unwrap();
        user.read(KeyRange::single(key)).unwrap();
    }
    for key in [&b"/registry"[..], b"/registry0", b"a", b"\xff"] {
        user.write(key).unwrap();
    }
    let over = [
        KeyRange::all(),
        KeyRange::prefix("/reg"),
        range(b"/registry", b"/registry/a"),
        range(b"/registry/z", b"\0"),
    ];
    for range in over {
        assert!(user.delete(range.clone()).is_err(), "{range:?}");
        assert_eq!(admin.delete(range.clone()).unwrap().end, range.end);
    }
    let beside = [
        range(b"a", b"\0"),
        range(b"/registry0", b"\0"),
        range(b"\0", b"/registry-"),
        range(b"a", b"b"),
    ];
    for range in beside {
        user.delete(range).unwrap();
    }
}

#[test]
fn tenants_do_not_see_the_clusters_objects() {
    let tenant = guard(Standing::Tenant);
    for range in [
        KeyRange::single(&b"/registry/secrets/default/a"[..]),
        KeyRange::prefix("/registry/secrets/"),
        KeyRange::prefix("/registry-alloc/"),
        KeyRange::prefix("/"),
        KeyRange::all(),
    ] {
        assert!(tenant.read(range.clone()).is_err(), "{range:?}");
        assert!(tenant.delete(range.clone()).is_err(), "{range:?}");
    }
    tenant.read(KeyRange::prefix("own/")).unwrap();
    tenant.write(b"own/a").unwrap();
    assert!(tenant.write(b"/registry/pods/a").is_err());
    assert!(tenant.manage().is_err() && tenant.operate().is_err() && tenant.admin().is_err());
}

#[test]
fn reserved_keys_are_out_of_reach_of_everybody() {
    let admin = guard(Standing::Admin);
    assert!(admin.write(b"\0").is_err());
    assert!(admin.write(b"\0quorate/auth/users/root").is_err());
    assert!(admin.read_key(&"\0quorate/auth".into()).is_err());
    admin.read_key(&"a".into()).unwrap();
    let reads = [
        KeyRange::all(),
        KeyRange::single(&b"\0quorate"[..]),
        KeyRange::prefix(&b"\0"[..]),
        range(b"\0a", b"\0b"),
        range(b"\0", b"\x01"),
        range(b"\0", b"z"),
    ];
    for wanted in reads {
        let allowed = admin.read(wanted.clone()).unwrap();
        assert!(!allowed.contains(b"\0quorate"), "{wanted:?} became {allowed:?}");
        assert!(!allowed.contains(b"\0aa"), "{wanted:?} became {allowed:?}");
        assert_eq!(allowed.contains(b"y"), wanted.contains(b"y"), "{wanted:?} became {allowed:?}");
    }
}
