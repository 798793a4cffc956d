use quorate_proto::etcd::authpb::{Permission, Role, permission::Type};
use quorate_store::KeyRange;

use super::*;

fn permission(kind: Type, key: &'static str, end: &'static str) -> Permission {
    Permission { perm_type: kind.into(), key: key.into(), range_end: end.into() }
}

fn permissions(granted: Vec<Permission>) -> Permissions {
    let user = User { name: "u".into(), password: None, roles: vec!["r".into(), "gone".into()] };
    let role = Role { name: "r".into(), key_permission: granted };
    let state = State { users: vec![user.clone()], roles: vec![role], ..State::default() };
    Permissions::of(&state, &user)
}

#[test]
fn permissions_that_touch_cover_what_spans_both() {
    let p = permissions(vec![
        permission(Type::Read, "a", "c"),
        permission(Type::Readwrite, "c", "f"),
        permission(Type::Write, "x", ""),
    ]);
    let range =
        |key: &'static str, end: &'static str| KeyRange { key: key.into(), end: end.into() };
    assert!(p.may_read(&range("a", "f")) && p.may_read(&range("b", "")));
    assert!(!p.may_read(&range("a", "g")) && !p.may_read(&range("x", "")));
    assert!(!p.may_read(&range("a", "\0")));
    assert!(p.may_write(&range("c", "e")) && p.may_write(&range("x", "")));
    assert!(!p.may_write(&range("b", "")) && !p.may_write(&range("x", "y")));
}

#[test]
fn an_open_end_covers_all_that_follows() {
    let p =
        permissions(vec![permission(Type::Readwrite, "m", "\0"), permission(Type::Read, "n", "o")]);
    assert!(p.may_write(&KeyRange { key: "n".into(), end: "\0".into() }));
    assert!(p.may_read(&KeyRange::single("zz")));
    assert!(!p.may_read(&KeyRange::all()));
}
