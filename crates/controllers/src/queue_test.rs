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

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_success_forgets_them() {
    let queue = WorkQueue::default();
    queue.add(key("a"));
    for expected in [20, 40, 80, 160] {
        let begin = Instant::now();
        let taken = queue.next().await;
        queue.failed(&taken);
        assert_eq!(now_or_never(&queue), None);
        let taken = queue.next().await;
        assert_eq!(begin.elapsed().as_millis() / 10 * 10, expected, "{taken}");
        // Put it back without the wait, for the next round.
        queue.failed(&taken);
        queue
            .state
            .lock()
            .failures
            .insert(key("a"), u32::try_from(expected / 20).unwrap().ilog2() + 1);
        queue.add(key("a"));
    }
    let taken = queue.next().await;
    queue.done(&taken, None);
    assert!(queue.state.lock().failures.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_two_times_counts() {
    let queue = WorkQueue::default();
    queue.add(key("a"));
    let taken = queue.next().await;
    queue.done(&taken, Some(Duration::from_secs(10)));
    queue.state.lock().add_at(key("a"), Instant::now() + Duration::from_secs(60));
    let begin = Instant::now();
    queue.next().await;
    assert_eq!(begin.elapsed().as_secs(), 10);
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
