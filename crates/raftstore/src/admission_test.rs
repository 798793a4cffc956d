#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn answer(instances: &[(MemberId, u64)], voters: &[MemberId]) -> Answer {
    let instance = |(member, instance): &(MemberId, u64)| pb::Instance {
        member: *member,
        instance: *instance,
    };
    Answer {
        instances: instances.iter().map(instance).collect(),
        voters: voters.to_vec(),
        members: voters.to_vec(),
        admitted: true,
        joins: false,
    }
}

fn none() -> Answer {
    answer(&[], &[])
}

#[test]
fn without_registrations_a_majority_forms_the_cluster() {
    assert_eq!(judge(1, 3, false, &[]), Verdict::Open);
    assert_eq!(judge(1, 3, false, &[none()]), Verdict::NoCluster);
    assert_eq!(judge(1, 1, false, &[]), Verdict::NoCluster);
    assert_eq!(judge(1, 5, false, &[none()]), Verdict::Open);
}

#[test]
fn a_master_that_joins_is_no_witness_that_there_is_no_cluster() {
    let joins = || Answer { joins: true, ..none() };
    assert_eq!(judge(1, 3, false, &[joins()]), Verdict::Open);
    assert_eq!(judge(1, 3, false, &[none(), joins()]), Verdict::Open);
    assert_eq!(judge(90, 3, true, &[none(), none()]), Verdict::Open, "it was told so itself");
}

#[test]
fn one_who_knows_of_earlier_data_is_enough_to_be_refused() {
    let knows = answer(&[(1, 1), (2, 2), (3, 3)], &[1, 2, 3]);
    assert_eq!(judge(3, 3, false, &[knows]), Verdict::Lost);
}

#[test]
fn a_member_that_lags_is_not_believed_alone() {
    // It has not applied the registration of member 3, which the other one and 3 may have.
    let lags = || answer(&[(1, 1), (2, 2)], &[1, 2, 3]);
    assert_eq!(judge(3, 3, false, &[lags()]), Verdict::Open);
    assert_eq!(judge(3, 3, false, &[lags(), lags()]), Verdict::New);
    let five = || answer(&[(1, 1)], &[1, 2, 3, 4, 5]);
    assert_eq!(judge(3, 5, false, &[five(), five()]), Verdict::Open);
    assert_eq!(judge(3, 5, false, &[five(), five(), five()]), Verdict::New);
}

#[test]
fn a_stranger_is_told_so() {
    let others = || answer(&[(1, 1), (2, 2)], &[1, 2, 3]);
    assert_eq!(judge(7, 4, false, &[others()]), Verdict::Open);
    assert_eq!(judge(7, 4, false, &[others(), others()]), Verdict::Stranger);
}

/// A list of members: id, name and address.
fn list(index: u64, members: &[(MemberId, &str, &str)]) -> pb::StateReply {
    let member = |(id, name, url): &(MemberId, &str, &str)| pb::Member {
        id: *id,
        name: (*name).to_owned(),
        peer_url: (*url).to_owned(),
        ..pb::Member::default()
    };
    let members = members.iter().map(member).collect();
    pb::StateReply {
        membership_index: index,
        membership: Some(pb::Membership { members, ..pb::Membership::default() }),
        ..pb::StateReply::default()
    }
}

#[test]
fn whoever_had_the_address_before_is_somebody_else() {
    let others = [(2, "m2", "http://b"), (3, "m3", "http://c")];
    let before = || list(10, &[(1, "m1", "http://a"), others[0], others[1]]);
    let after = || list(12, &[others[0], others[1], (90, "m1-2", "http://a")]);
    let id = |replies| own_id("m1-2", "http://a", replies);
    // A master that lags answers first, or alone.
    assert_eq!(id(vec![before(), after()]), Some(90));
    assert_eq!(id(vec![before()]), None, "it waits until somebody knows it");
    assert_eq!(id(Vec::new()), None);
}

#[test]
fn a_member_that_was_added_without_a_name_is_known_by_its_address() {
    let before = list(10, &[(50, "", "http://a"), (2, "m2", "http://b")]);
    let after = list(12, &[(2, "m2", "http://b"), (90, "", "http://a")]);
    let id = |replies| own_id("m1-2", "http://a", replies);
    assert_eq!(id(vec![before.clone(), after.clone()]), Some(90), "the newest list counts");
    assert_eq!(id(vec![after.clone()]), Some(90));
    assert_eq!(own_id("m9", "http://z", vec![before, after]), None);
}

#[tokio::test(start_paused = true)]
async fn a_new_member_waits_for_a_cluster_that_does_not_answer() {
    let closed = crate::cluster_test::free_address();
    let info = |name: &str| MemberInfo {
        name: name.to_owned(),
        peer_url: format!("http://{closed}"),
        client_url: String::new(),
        promote: false,
    };
    let nodes = BTreeMap::from([(1, info("m1")), (2, info("m2-2"))]);
    let peers = Peers::new("test", None).unwrap();
    let find = find_id(&peers, "m2-2", &nodes);
    let waited = tokio::time::timeout(10 * JOIN_WAIT, find).await;
    assert!(waited.is_err(), "{waited:?}");
}
