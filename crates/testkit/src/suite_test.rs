use std::time::Duration;

use super::{Arguments, Outcome};

fn arguments(line: &str) -> Arguments {
    Arguments::parse(std::iter::once("test").chain(line.split_whitespace()).map(str::to_owned))
}

#[test]
fn filters_as_libtest_does() {
    let all = arguments("--test-threads=1 --nocapture");
    assert!(all.wants("anything"));
    let some = arguments("--test-threads 1 leader node");
    assert!(some.wants("kill_leader") && some.wants("node_dies") && !some.wants("logs"));
    let exact = arguments("--exact leader");
    assert!(exact.wants("leader") && !exact.wants("kill_leader"));
}

#[test]
fn cases_that_were_not_reached_have_not_passed() {
    let start = ("(start of the cluster)", "no binary".to_owned());
    let outcome = Outcome { passed: 0, failures: vec![start] };
    let summary = outcome.summary(5, 0, Duration::ZERO);
    assert!(summary.starts_with("test result: FAILED. 0 passed; 5 failed;"), "{summary}");
}
