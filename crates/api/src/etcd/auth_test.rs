#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::StreamExt as _;
use quorate_proto::etcd::authpb::{Permission, UserAddOptions, permission::Type};
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::auth_server::Auth as _;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcd::etcdserverpb::lease_server::Lease as _;
use quorate_proto::etcd::etcdserverpb::maintenance_server::Maintenance as _;
use quorate_proto::etcd::v3electionpb::LeaderRequest;
use quorate_proto::etcd::v3electionpb::election_server::Election as _;
use quorate_registry::{Registry, RegistryOptions};
use quorate_store::MemoryStore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use crate::auth::User as Caller;
use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, on, put_of, said, soon};

/// A request with a token.
fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

fn user(name: &str, password: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() }
}

async fn grant(etcd: &Etcd, token: &str, user: &str, role: &str) -> Result<(), Status> {
    let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    etcd.user_grant_role(by(token, request)).await.map(drop)
}

async fn permit(etcd: &Etcd, token: &str, role: &str, kind: Type, key: &str, end: &str) {
    let perm = Permission {
        perm_type: kind.into(),
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
    };
    let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
    etcd.role_grant_permission(by(token, request)).await.unwrap();
}

async fn log_in(etcd: &Etcd, name: &str, password: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    Ok(etcd.authenticate(Request::new(request)).await?.into_inner().token)
}

/// Root, and alice, who may read a… and write ab; both with their names as passwords.
async fn enabled(etcd: &Etcd) -> (String, String) {
    for name in ["root", "alice"] {
        etcd.user_add(by("", user(name, name))).await.unwrap();
    }
    grant(etcd, "", "root", "root").await.unwrap();
    etcd.role_add(by("", pb::AuthRoleAddRequest { name: "r".into() })).await.unwrap();
    permit(etcd, "", "r", Type::Read, "a", "b").await;
    permit(etcd, "", "r", Type::Readwrite, "ab", "").await;
    grant(etcd, "", "alice", "r").await.unwrap();
    etcd.auth_enable(by("", pb::AuthEnableRequest {})).await.unwrap();
    (log_in(etcd, "root", "root").await.unwrap(), log_in(etcd, "alice", "alice").await.unwrap())
}

async fn put(etcd: &Etcd, token: &str, key: &str) -> Result<(), Status> {
    etcd.put(by(token, put_of(key, "v"))).await.map(drop)
}

async fn read(etcd: &Etcd, token: &str, key: &str, end: &str) -> Result<(), Status> {
    let request = pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    };
    etcd.range(by(token, request)).await.map(drop)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    assert_eq!(said(&answer.unwrap_err()), (code, format!("etcdserver: {text}")));
}

#[tokio::test]
async fn users_and_roles_change_by_etcds_rules() {
    let etcd = etcd().await;
    let wrong = Code::FailedPrecondition;
    let enable = async || etcd.auth_enable(by("", pb::AuthEnableRequest {})).await;
    refused(enable().await, wrong, "root user does not exist");
    etcd.user_add(by("", user("root", "x"))).await.unwrap();
    refused(enable().await, wrong, "root user does not have root role");
    refused(etcd.user_add(by("", user("root", "x"))).await, wrong, "user name already exists");
    let nameless = etcd.user_add(by("", user("", "x"))).await;
    refused(nameless, Code::InvalidArgument, "user name is empty");
    refused(grant(&etcd, "", "bob", "r").await, wrong, "user name not found");
    refused(grant(&etcd, "", "root", "r").await, wrong, "role name not found");
    refused(log_in(&etcd, "root", "x").await, wrong, "authentication is not enabled");

    let role = || by("", pb::AuthRoleAddRequest { name: "r".into() });
    etcd.role_add(role()).await.unwrap();
    refused(etcd.role_add(role()).await, wrong, "role name already exists");
    permit(&etcd, "", "r", Type::Read, "k", "").await;
    permit(&etcd, "", "r", Type::Write, "k", "").await;
    let get = pb::AuthRoleGetRequest { role: "r".into() };
    let permissions = etcd.role_get(by("", get)).await.unwrap().into_inner().perm;
    assert_eq!(permissions.len(), 1, "the same range is granted anew: {permissions:?}");
    assert_eq!(permissions[0].perm_type(), Type::Write);
    grant(&etcd, "", "root", "r").await.unwrap();
    etcd.role_delete(by("", pb::AuthRoleDeleteRequest { role: "r".into() })).await.unwrap();
    let get = pb::AuthUserGetRequest { name: "root".into() };
    let roles = etcd.user_get(by("", get)).await.unwrap().into_inner().roles;
    assert!(roles.is_empty(), "a role that is gone is nobody's: {roles:?}");
}

#[tokio::test]
async fn permissions_hold_for_every_kind_of_access() {
    let etcd = etcd().await;
    let (root, alice) = enabled(&etcd).await;
    let denied = Code::PermissionDenied;
    put(&etcd, &root, "anything").await.unwrap();
    put(&etcd, &alice, "ab").await.unwrap();
    read(&etcd, &alice, "a", "b").await.unwrap();
    refused(put(&etcd, &alice, "ac").await, denied, "permission denied");
    refused(read(&etcd, &alice, "a", "c").await, denied, "permission denied");
    refused(put(&etcd, "", "ab").await, Code::InvalidArgument, "user name is empty");
    refused(put(&etcd, "nonsense", "ab").await, Code::Unauthenticated, "invalid auth token");
    let delete = pb::DeleteRangeRequest { key: "ac".into(), ..Default::default() };
    refused(etcd.delete_range(by(&alice, delete)).await, denied, "permission denied");
    let hidden = pb::TxnRequest {
        failure: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put_of("ac", ""))),
        }],
        ..Default::default()
    };
    refused(etcd.txn(by(&alice, hidden)).await, denied, "permission denied");
    let compare = pb::Compare { key: "x".into(), ..Default::default() };
    let peek = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    refused(etcd.txn(by(&alice, peek)).await, denied, "permission denied");

    let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    refused(etcd.lease_grant(by("", grant)).await, Code::InvalidArgument, "user name is empty");
    etcd.lease_grant(by(&root, grant)).await.unwrap();
    let leased = pb::PutRequest { lease: 7, ..put_of("x", "") };
    etcd.put(by(&root, leased)).await.unwrap();
    let revoke = etcd.lease_revoke(by(&alice, pb::LeaseRevokeRequest { id: 7 })).await;
    refused(revoke, denied, "permission denied");

    let list = etcd.user_list(by(&alice, pb::AuthUserListRequest {})).await;
    refused(list, denied, "permission denied");
    let own = pb::AuthUserGetRequest { name: "alice".into() };
    etcd.user_get(by(&alice, own)).await.unwrap();
    let hash = etcd.hash(by(&alice, pb::HashRequest {})).await;
    refused(hash, denied, "permission denied");
    refused(put(&etcd, &root, "/registry/a").await, denied, "permission denied");
}

/// Users are below a name that an election could have.
#[tokio::test]
async fn elections_show_nothing_that_is_reserved() {
    let etcd = etcd().await;
    let (root, _) = enabled(&etcd).await;
    let of = |name: &'static str| by(&root, LeaderRequest { name: name.into() });
    let mut reserved = Vec::new();
    for name in ["\0quorate/etcd", "\0quorate", "\0"] {
        let status = etcd.leader(of(name)).await.unwrap_err();
        assert_eq!(status.message(), "election: no leader", "{name:?}");
        reserved.push(etcd.observe(of(name)).await.unwrap().into_inner());
    }
    let mut other = etcd.observe(of("e")).await.unwrap().into_inner();
    etcd.role_add(by(&root, pb::AuthRoleAddRequest { name: "new".into() })).await.unwrap();
    put(&etcd, &root, "e/1").await.unwrap();
    let seen = soon(other.next()).await.unwrap().unwrap().kv.unwrap();
    assert_eq!(seen.key, "e/1", "observers have seen what there was");
    etcd.cancel.cancel();
    for mut silent in reserved {
        let status = soon(silent.next()).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "the end is the first that is heard");
    }
}

#[tokio::test]
async fn tokens_end_with_passwords_and_users() {
    let etcd = etcd().await;
    let (root, alice) = enabled(&etcd).await;
    let failed = "authentication failed, invalid user ID or password";
    refused(log_in(&etcd, "alice", "wrong").await, Code::InvalidArgument, failed);
    refused(log_in(&etcd, "nobody", "x").await, Code::InvalidArgument, failed);
    let change = pb::AuthUserChangePasswordRequest {
        name: "alice".into(),
        password: "new".into(),
        ..Default::default()
    };
    etcd.user_change_password(by(&root, change)).await.unwrap();
    refused(put(&etcd, &alice, "ab").await, Code::Unauthenticated, "invalid auth token");
    let alice = log_in(&etcd, "alice", "new").await.unwrap();
    put(&etcd, &alice, "ab").await.unwrap();
    let forged = alice.replace("alice", "root");
    refused(put(&etcd, &forged, "x").await, Code::Unauthenticated, "invalid auth token");

    let delete = |name: &str| by(&root, pb::AuthUserDeleteRequest { name: name.into() });
    let root_gone = etcd.user_delete(delete("root")).await;
    refused(root_gone, Code::InvalidArgument, "invalid auth management");
    etcd.user_delete(delete("alice")).await.unwrap();
    refused(put(&etcd, &alice, "ab").await, Code::Unauthenticated, "invalid auth token");

    let silent = pb::AuthUserAddRequest {
        options: Some(UserAddOptions { no_password: true }),
        ..user("bob", "")
    };
    etcd.user_add(by(&root, silent)).await.unwrap();
    refused(log_in(&etcd, "bob", "").await, Code::InvalidArgument, failed);
    etcd.auth_disable(by(&root, pb::AuthDisableRequest {})).await.unwrap();
    put(&etcd, "", "free").await.unwrap();
}

#[tokio::test]
async fn every_master_knows_and_a_new_one_too() {
    let store = MemoryStore::new();
    let first = on(store.clone(), |_| {}).await;
    let second = on(store.clone(), |_| {}).await;
    let (root, _) = enabled(&first).await;
    soon(async {
        while put(&second, "", "x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    put(&second, &root, "x").await.unwrap();
    let third = on(store, |_| {}).await;
    refused(put(&third, "", "x").await, Code::InvalidArgument, "user name is empty");
    put(&third, &root, "x").await.unwrap();
}

/// A request over TLS of somebody in this group.
fn from<T>(group: &str, token: &str, message: T) -> Request<T> {
    let mut request = by(token, message);
    let groups = vec![group.to_owned()];
    request.extensions_mut().insert(Arc::new(Caller { groups, ..Caller::default() }));
    request
}

/// Over TLS the cluster decides first, and then the users of the etcd API.
#[tokio::test]
async fn nodes_and_strangers_reach_nothing_over_tls() {
    let store = MemoryStore::new();
    let cancel = CancellationToken::new();
    let registry = Registry::start(store.clone(), RegistryOptions::default(), cancel.clone());
    let auth = Arc::new(crate::auth::Auth::new(registry));
    let etcd = on(store, |options| options.auth = Some(auth)).await;
    let object = || put_of("/registry/configmaps/default/a", "x");
    let secrets = || pb::RangeRequest {
        key: "/registry/secrets/".into(),
        range_end: "/registry/secrets0".into(),
        ..Default::default()
    };
    let no = Code::PermissionDenied;
    for group in ["system:nodes", "system:authenticated"] {
        refused(etcd.put(from(group, "", put_of("a", "b"))).await, no, "permission denied");
        refused(etcd.range(from(group, "", secrets())).await, no, "permission denied");
        let add = etcd.user_add(from(group, "", user("eve", "x"))).await;
        refused(add, no, "permission denied");
    }
    refused(etcd.put(by("", put_of("a", "b"))).await, no, "permission denied");
    let masters = "system:masters";
    etcd.put(from(masters, "", put_of("a", "b"))).await.unwrap();
    etcd.put(from(masters, "", object())).await.unwrap();
    etcd.range(from(masters, "", secrets())).await.unwrap();
    etcd.user_add(from(masters, "", user("root", "x"))).await.unwrap();
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    etcd.user_grant_role(from(masters, "", grant)).await.unwrap();
    etcd.auth_enable(from(masters, "", pb::AuthEnableRequest {})).await.unwrap();
    // Now whoever knows a name of the etcd API uses it, but for what is the cluster's.
    let root = log_in(&etcd, "root", "x").await.unwrap();
    let of_node = "system:nodes";
    refused(
        etcd.put(from(of_node, "", put_of("a", "b"))).await,
        Code::InvalidArgument,
        "user name is empty",
    );
    etcd.put(from(of_node, &root, put_of("a", "b"))).await.unwrap();
    refused(etcd.range(from(of_node, &root, secrets())).await, no, "permission denied");
    refused(etcd.put(from(of_node, &root, object())).await, no, "permission denied");
    let snapshot = etcd.snapshot(from(of_node, &root, pb::SnapshotRequest::default())).await;
    refused(snapshot.map(drop), no, "permission denied");
    cancel.cancel();
}
