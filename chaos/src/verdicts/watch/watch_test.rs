use crate::evidence::{Evidence, WatchItem, WatchLog, Write, Writes};
use crate::verdicts::{Promise, violations};

fn change(revision: u64, key: &str, value: u64) -> WatchItem {
    WatchItem::Change { revision, key: key.into(), value: Some(value), previous: None }
}

fn log(items: &[WatchItem]) -> WatchLog {
    WatchLog { name: "w".into(), prefix: String::new(), from: 4, items: items.to_vec() }
}

fn found(promise: &Promise, items: &[WatchItem]) -> usize {
    let evidence = Evidence { watches: vec![log(items)], ..Evidence::default() };
    violations(promise, &evidence).len()
}

#[test]
fn an_old_event_after_a_newer_one_is_found() {
    let promise = &super::ordered::PROMISE;
    assert_eq!(found(promise, &[change(5, "a", 1), change(5, "b", 2), change(6, "a", 3)]), 0);
    assert_eq!(found(promise, &[change(6, "a", 1), change(5, "b", 2)]), 1);
    // Before the place where the watch begins (etcd-io/etcd#20221 is the same the other way).
    assert_eq!(found(promise, &[change(4, "a", 1)]), 1);
}

#[test]
fn an_event_that_comes_twice_is_found() {
    let promise = &super::unique::PROMISE;
    assert_eq!(found(promise, &[change(5, "a", 1), change(5, "b", 2)]), 0);
    assert_eq!(found(promise, &[change(5, "a", 1), change(5, "a", 1)]), 1);
}

#[test]
fn a_missed_event_is_found() {
    let promise = &super::reliable::PROMISE;
    let write = |revision, key: &str, value| Write { key: key.into(), value, revision };
    let evidence = |acknowledged: Vec<Write>, logs: Vec<WatchLog>| Evidence {
        writes: Writes { acknowledged, ..Writes::default() },
        watches: logs,
        ..Evidence::default()
    };
    let writes = || vec![write(4, "a", Some(9)), write(5, "a", Some(1)), write(7, "b", Some(2))];
    let end = WatchItem::Bookmark(8);
    let all = log(&[change(5, "a", 1), change(7, "b", 2), end.clone()]);
    assert!(violations(promise, &evidence(writes(), vec![all.clone()])).is_empty());
    // Not complete so far: nothing is missing yet.
    let early = log(&[change(5, "a", 1)]);
    assert!(violations(promise, &evidence(writes(), vec![early])).is_empty());
    let missed = log(&[change(5, "a", 1), end.clone()]);
    assert_eq!(violations(promise, &evidence(writes(), vec![missed.clone()])).len(), 1);
    // Nobody was told about the write, but another watcher saw it.
    assert_eq!(violations(promise, &evidence(vec![], vec![all.clone(), missed])).len(), 1);
    let elsewhere = WatchLog { prefix: "z".into(), ..log(std::slice::from_ref(&end)) };
    assert!(violations(promise, &evidence(writes(), vec![all.clone(), elsewhere])).is_empty());
    let wrong = log(&[change(5, "a", 3), change(7, "b", 2), end]);
    assert_eq!(violations(promise, &evidence(writes(), vec![all, wrong])).len(), 1);
}

#[test]
fn a_split_revision_is_found() {
    let promise = &super::atomic::PROMISE;
    assert_eq!(found(promise, &[change(5, "a", 1), change(5, "b", 2), change(6, "a", 3)]), 0);
    let between = [change(5, "a", 1), change(6, "a", 3), change(5, "b", 2)];
    assert_eq!(found(promise, &between), 1);
    let bookmark = [change(5, "a", 1), WatchItem::Bookmark(4), change(5, "b", 2)];
    assert_eq!(found(promise, &bookmark), 1);
    let broken = [change(5, "a", 1), WatchItem::Resumed(4), change(5, "b", 2)];
    assert_eq!(found(promise, &broken), 0);
}

#[test]
fn going_back_in_time_after_a_break_is_found() {
    let promise = &super::resumable::PROMISE;
    let resumed = |item| [change(5, "a", 1), WatchItem::Resumed(5), item];
    assert_eq!(found(promise, &resumed(change(6, "a", 2))), 0);
    assert_eq!(found(promise, &resumed(change(5, "b", 2))), 1);
    assert_eq!(found(promise, &resumed(WatchItem::Bookmark(3))), 1);
}

#[test]
fn a_bookmark_ahead_of_events_is_found() {
    let promise = &super::bookmarks::PROMISE;
    assert_eq!(found(promise, &[WatchItem::Bookmark(5), change(6, "a", 1)]), 0);
    assert_eq!(found(promise, &[WatchItem::Bookmark(6), change(6, "a", 1)]), 1);
}

#[test]
fn a_wrong_previous_value_is_found() {
    let promise = &super::previous::PROMISE;
    let after = |revision, value, previous| WatchItem::Change {
        revision,
        key: "a".into(),
        value,
        previous: Some(previous),
    };
    let first = after(5, Some(1), Some(77));
    let delete = after(6, None, Some(1));
    assert_eq!(found(promise, &[first.clone(), delete.clone(), after(7, Some(2), None)]), 0);
    assert_eq!(found(promise, &[first.clone(), after(6, Some(2), Some(5))]), 1);
    assert_eq!(found(promise, &[first, delete, after(7, Some(2), Some(1))]), 1);
}
