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
    }
}

fn none() -> Answer {
    answer(&[], &[])
}

#[test]
fn without_registrations_a_majority_forms_the_cluster() {
    assert_eq!(judge(1, 3, &[]), Verdict::Open);
    assert_eq!(judge(1, 3, &[none()]), Verdict::NoCluster);
    assert_eq!(judge(1, 1, &[]), Verdict::NoCluster);
    assert_eq!(judge(1, 5, &[none()]), Verdict::Open);
}

#[test]
fn one_who_knows_of_earlier_data_is_enough_to_be_refused() {
    let knows = answer(&[(1, 1), (2, 2), (3, 3)], &[1, 2, 3]);
    assert_eq!(judge(3, 3, &[knows]), Verdict::Lost);
}

#[test]
fn a_member_that_lags_is_not_believed_alone() {
    // It has not applied the registration of member 3, which the other one and 3 may have.
    let lags = || answer(&[(1, 1), (2, 2)], &[1, 2, 3]);
    assert_eq!(judge(3, 3, &[lags()]), Verdict::Open);
    assert_eq!(judge(3, 3, &[lags(), lags()]), Verdict::New);
    let five = || answer(&[(1, 1)], &[1, 2, 3, 4, 5]);
    assert_eq!(judge(3, 5, &[five(), five()]), Verdict::Open);
    assert_eq!(judge(3, 5, &[five(), five(), five()]), Verdict::New);
}

#[test]
fn a_stranger_is_told_so() {
    let others = || answer(&[(1, 1), (2, 2)], &[1, 2, 3]);
    assert_eq!(judge(7, 4, &[others()]), Verdict::Open);
    assert_eq!(judge(7, 4, &[others(), others()]), Verdict::Stranger);
}
