#![allow(clippy::unwrap_used)]

use futures::FutureExt as _;
use quorate_objects::kinds;

use super::*;

fn key(name: &str) -> Key {
    Key { kind: &kinds::POD, namespace: "default".into(), name: name.into() }
}

fn now_or_never(queue: &WorkQueue) -> Option<String> {
    queue.next().now_or_never().map(|key| key.name)
}

#[tokio::test]
async fn a_key_is_queued_once_and_worked_on_by_one() {
    let queue = WorkQueue::default();
    queue.add(key("a"));
    queue.add(key("a"));
    assert_eq!(now_or_never(&queue).as_deref(), Some("a"));
    queue.add(key("a"));
    assert_eq!(now_or_never(&queue), None, "it is being worked on");
    queue.done(&key("a"), None);
    assert_eq!(now_or_never(&queue).as_deref(), Some("a"), "the change is not lost");
    queue.done(&key("a"), None);
    assert_eq!(now_or_never(&queue), None);
}

#[test]
fn failures_back_off_and_success_forgets_them() {
    let queue = WorkQueue::default();
    let mut now = Instant::now();
    queue.add(key("a"));
    let take = |now| queue.state.lock().take(now);
    for expected in [20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_000, 10_000] {
        let wait = Duration::from_millis(expected);
        queue.failed_at(&take(now).unwrap(), now);
        assert_eq!(take(now + wait - Duration::from_millis(1)), None, "{expected}");
        now += wait;
    }
    queue.done_at(&take(now).unwrap(), None, now);
    queue.add(key("a"));
    queue.failed_at(&take(now).unwrap(), now);
    assert!(take(now + Duration::from_millis(20)).is_some(), "it begins anew");
}

#[test]
fn the_earlier_of_two_times_counts() {
    let queue = WorkQueue::default();
    let now = Instant::now();
    queue.add(key("a"));
    let take = |now| queue.state.lock().take(now);
    queue.done_at(&take(now).unwrap(), Some(Duration::from_secs(10)), now);
    queue.state.lock().add_at(key("a"), now + Duration::from_secs(60));
    assert_eq!(take(now + Duration::from_secs(9)), None);
    assert!(take(now + Duration::from_secs(10)).is_some());
    assert!(queue.state.lock().later.is_empty());
}

#[tokio::test]
async fn every_worker_is_woken() {
    let queue = std::sync::Arc::new(WorkQueue::default());
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.next().await.name })
        })
        .collect();
    tokio::task::yield_now().await;
    for name in ["a", "b", "c"] {
        queue.add(key(name));
    }
    let mut names = Vec::new();
    for worker in workers {
        names.push(tokio::time::timeout(Duration::from_secs(5), worker).await.unwrap().unwrap());
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
}
