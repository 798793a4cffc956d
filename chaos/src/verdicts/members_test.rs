use super::PROMISE;
use crate::evidence::{Evidence, MemberContents};
use crate::verdicts::violations;

fn member(name: &str, revision: u64, contents: &[(&str, &str)]) -> MemberContents {
    let contents = contents.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    MemberContents { member: name.into(), part: "Pod".into(), revision, contents }
}

#[test]
fn members_may_differ_at_different_revisions_only() {
    let good = vec![
        member("m1", 5, &[("a", "1")]),
        member("m2", 5, &[("a", "1")]),
        member("m3", 6, &[("a", "2")]),
    ];
    assert!(
        violations(&PROMISE, &Evidence { members: good.clone(), ..Evidence::default() }).is_empty()
    );
    for other in [&[][..], &[("a", "2")], &[("a", "1"), ("b", "1")]] {
        let mut bad = good.clone();
        bad.push(member("m4", 5, other));
        let evidence = Evidence { members: bad, ..Evidence::default() };
        assert_eq!(violations(&PROMISE, &evidence).len(), 1, "{other:?}");
    }
}
