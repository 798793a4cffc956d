use super::Arguments;

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
