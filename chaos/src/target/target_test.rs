use super::*;

fn status(name: &str, role: &str, term: u64, leader: &str) -> StatusResponse {
    StatusResponse {
        name: name.into(),
        role: role.into(),
        term,
        leader: leader.into(),
        ..StatusResponse::default()
    }
}

#[test]
fn a_role_of_an_earlier_term_makes_no_leader() {
    // It has heard of the new term, and has not given up its role yet.
    let deposed = status("m1", "leader", 5, "m2");
    let elected = status("m2", "candidate", 5, "m2");
    assert!(!leads(&deposed) && leads(&elected));
    assert!(!leads(&status("m3", "follower", 5, "")));
    assert_eq!(leader_of(&[deposed.clone(), elected]).as_deref(), Some("m2"));
    assert_eq!(leader_of(&[deposed]), None);
}

#[test]
fn the_newest_term_has_the_leader() {
    let (old, new) = (status("m1", "leader", 4, "m1"), status("m2", "leader", 5, "m2"));
    assert_eq!(leader_of(&[new, old]).as_deref(), Some("m2"));
}
