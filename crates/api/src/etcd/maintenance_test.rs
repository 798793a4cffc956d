#![allow(clippy::unwrap_used)]

use futures::StreamExt as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcd::etcdserverpb::cluster_server::Cluster as _;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcd::etcdserverpb::maintenance_server::Maintenance as _;
use ring::digest;
use tonic::{Code, Request};

use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, etcd_with, put_of, said, soon};

async fn alarm(etcd: &Etcd, action: AlarmAction, kind: pb::AlarmType) -> Vec<pb::AlarmMember> {
    let request = pb::AlarmRequest { action: action.into(), member_id: 0, alarm: kind.into() };
    etcd.alarm(Request::new(request)).await.unwrap().into_inner().alarms
}

#[tokio::test]
async fn without_space_only_deletions_and_compactions_are_taken() {
    let etcd = etcd().await;
    etcd.must_put("a", "1").await;
    let on = pb::AlarmMember { member_id: 1, alarm: pb::AlarmType::Nospace.into() };
    assert_eq!(alarm(&etcd, AlarmAction::Activate, pb::AlarmType::Nospace).await, [on]);
    assert_eq!(alarm(&etcd, AlarmAction::Get, pb::AlarmType::None).await, [on]);
    let status = etcd.status(Request::new(pb::StatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.errors, ["memberID:1 alarm:NOSPACE "]);
    let full = etcd.put(Request::new(put_of("a", "2"))).await.unwrap_err();
    let text = "etcdserver: mvcc: database space exceeded";
    assert_eq!(said(&full), (Code::ResourceExhausted, text.to_owned()));
    let revision = etcd.must_delete("a").await;
    etcd.must_compact(revision).await;
    assert_eq!(alarm(&etcd, AlarmAction::Deactivate, pb::AlarmType::None).await, [on]);
    assert_eq!(alarm(&etcd, AlarmAction::Get, pb::AlarmType::None).await, []);
    etcd.must_put("a", "2").await;
}

#[tokio::test]
async fn a_snapshot_has_the_length_and_checksum_that_etcdctl_expects() {
    let etcd = etcd().await;
    etcd.must_put("a", "1").await;
    let request = Request::new(pb::SnapshotRequest {});
    let mut stream = etcd.snapshot(request).await.unwrap().into_inner();
    let mut image = Vec::new();
    while let Some(chunk) = soon(stream.next()).await {
        image.extend_from_slice(&chunk.unwrap().blob);
    }
    assert_eq!(image.len() % 512, 32);
    let (content, sum) = image.split_at(image.len() - 32);
    assert_eq!(digest::digest(&digest::SHA256, content).as_ref(), sum);
}

#[tokio::test]
async fn status_hashes_and_members() {
    let etcd = etcd().await;
    etcd.must_put("a", "1").await;
    let status = etcd.status(Request::new(pb::StatusRequest {})).await.unwrap().into_inner();
    assert_eq!((status.leader, status.raft_term, status.errors.len()), (1, 1, 0));
    assert!(status.version.starts_with("3.") && status.raft_applied_index > 0, "{status:?}");
    let hash = async |revision| {
        let request = Request::new(pb::HashKvRequest { revision });
        etcd.hash_kv(request).await.unwrap().into_inner()
    };
    let before = hash(0).await;
    etcd.must_put("a", "2").await;
    assert_ne!(hash(0).await.hash, before.hash);
    assert_eq!(hash(2).await.hash, before.hash, "a hash of the past does not change");
    let list = Request::new(pb::MemberListRequest { linearizable: true });
    let members = etcd.member_list(list).await.unwrap().into_inner().members;
    assert_eq!(members.len(), 1);
    let downgrade = etcd.downgrade(Request::new(pb::DowngradeRequest::default())).await;
    assert_eq!(downgrade.unwrap_err().message(), "etcdserver: invalid downgrade target version");
}

#[tokio::test]
async fn members_and_leaders_change_for_good_reasons_only() {
    let add = |urls: &[&str]| {
        let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
        Request::new(pb::MemberAddRequest { peer_ur_ls, is_learner: false })
    };
    let user = etcd().await;
    let denied = user.member_add(add(&["http://127.0.0.1:1"])).await.unwrap_err();
    assert_eq!(denied.message(), "etcdserver: permission denied");
    let admin = etcd_with(|options| options.all_admins = true).await;
    for urls in [&[][..], &["127.0.0.1:1"], &["http://a:1", "http://b:1"]] {
        let wrong = admin.member_add(add(urls)).await.unwrap_err();
        assert_eq!(wrong.message(), "etcdserver: given member URLs are invalid", "{urls:?}");
    }
    let unsupported = admin.member_add(add(&["http://127.0.0.1:1"])).await.unwrap_err();
    assert_eq!(unsupported.code(), Code::Unimplemented);
    let transfer = Request::new(pb::MoveLeaderRequest { target_id: 77 });
    let stranger = admin.move_leader(transfer).await.unwrap_err();
    assert_eq!(stranger.message(), "etcdserver: bad leader transferee");
}
