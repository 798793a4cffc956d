use super::PROMISE;
use crate::evidence::{Container, Evidence, SteadyWindow};
use crate::verdicts::{STALL_MS, violations};

fn container(id: &str, started_at: &str, running: bool) -> Container {
    Container {
        id: id.into(),
        node: "n1".into(),
        pod_uid: "u".into(),
        pod: "default/web".into(),
        name: "web".into(),
        started_at: started_at.into(),
        running,
        stateful: false,
    }
}

fn window(after: Vec<Container>) -> Evidence {
    let before = vec![container("a", "t1", true)];
    let window = SteadyWindow { faults: "kill the leader".into(), before, after, late_ms: 0 };
    Evidence { steady: vec![window], ..Evidence::default() }
}

#[test]
fn every_kind_of_notice_is_found() {
    let same = container("a", "t1", true);
    let new = container("b", "t2", true);
    assert!(violations(&PROMISE, &window(vec![same, new.clone()])).is_empty());
    for bad in [new, container("a", "t2", true), container("a", "t1", false)] {
        assert_eq!(violations(&PROMISE, &window(vec![bad.clone()])).len(), 1, "{bad:?}");
    }
}

#[test]
fn what_had_ended_before_may_go() {
    let same = container("a", "t1", true);
    let mut evidence = window(vec![same]);
    evidence.steady[0].before.push(container("b", "t0", false));
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
}

#[test]
fn a_step_in_which_the_machine_stood_still_is_not_judged() {
    let mut evidence = window(Vec::new());
    evidence.steady[0].late_ms = STALL_MS;
    assert_eq!(violations(&PROMISE, &evidence), Vec::<String>::new());
    evidence.steady[0].late_ms = STALL_MS - 1;
    assert_eq!(violations(&PROMISE, &evidence).len(), 1);
}
