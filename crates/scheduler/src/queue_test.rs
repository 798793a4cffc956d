use serde_json::json;

use super::*;
use crate::filter::Filter;
use crate::fixtures::{as_pod, pod};
use crate::snapshot::ClusterSnapshot;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

/// A queue, with the snapshot that knows the classes of its pods.
struct Tested {
    queue: Queue,
    snapshot: ClusterSnapshot,
}

impl Tested {
    fn upsert(&mut self, pod: Arc<Pod>, revision: u64) {
        let class = self.snapshot.class_of(&pod);
        self.queue.upsert(pod, revision, class);
    }

    fn unschedulable(&mut self, key: &PodKey, now: Instant) {
        self.queue.unschedulable(key, FilterSet::from([Filter::NodeResourcesFit]), now);
    }

    fn wake(&mut self, now: Instant) {
        self.queue.wake(FilterSet::from([Filter::NodeResourcesFit]), |_, _| true, now);
    }
}

impl std::ops::Deref for Tested {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl std::ops::DerefMut for Tested {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

fn queue() -> Tested {
    Tested { queue: Queue::new(FIRST, LONGEST), snapshot: ClusterSnapshot::new() }
}

fn named(name: &str) -> Arc<Pod> {
    Arc::new(as_pod(&pod(name, "1", "1Gi")))
}

fn popped(queue: &mut Queue) -> Option<String> {
    queue.pop().map(|(key, _)| key.name)
}

#[test]
fn priority_goes_first_then_age() {
    let mut queue = queue();
    queue.upsert(named("a"), 1);
    queue.upsert(named("b"), 2);
    let mut urgent = pod("urgent", "1", "1Gi");
    urgent["spec"]["priority"] = json!(100);
    queue.upsert(Arc::new(as_pod(&urgent)), 3);
    let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
    assert_eq!(order, ["urgent", "a", "b"]);
}

#[test]
fn back_off_doubles_up_to_its_limit() {
    let mut queue = queue();
    let start = Instant::now();
    queue.upsert(named("a"), 1);
    for expected in [1, 2, 4, 8, 10, 10] {
        let (key, _) = queue.pop().expect("it is active");
        queue.failed(&key, start);
        assert_eq!(queue.next_due(), Some(start + Duration::from_secs(expected)));
        queue.tick(start + Duration::from_secs(expected));
    }
}

#[test]
fn an_unschedulable_pod_waits_for_a_change_of_the_cluster() {
    let mut queue = queue();
    let now = Instant::now();
    queue.upsert(named("a"), 1);
    let (key, _) = queue.pop().expect("it is active");
    queue.unschedulable(&key, now);
    queue.tick(now + LONGEST * 10);
    assert!(!queue.has_active());
    // Its own change of status does not wake it.
    queue.upsert(named("a"), 2);
    assert!(!queue.has_active());
    // Woken within its back-off it waits for the rest of that.
    queue.wake(now);
    assert!(!queue.has_active());
    queue.tick(now + FIRST);
    let (key, waiting) = queue.pop().expect("it is active");
    assert_eq!(waiting.revision, 2);
    queue.unschedulable(&key, now);
    queue.wake(now + LONGEST);
    assert!(queue.has_active());
}

#[test]
fn other_needs_are_tried_at_once() {
    let mut queue = queue();
    let now = Instant::now();
    queue.upsert(named("a"), 1);
    let (key, _) = queue.pop().expect("it is active");
    queue.unschedulable(&key, now);
    let mut tolerant = pod("a", "1", "1Gi");
    tolerant["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    queue.upsert(Arc::new(as_pod(&tolerant)), 2);
    assert!(queue.has_active());
}

#[test]
fn a_change_during_the_attempt_is_not_lost() {
    let mut queue = queue();
    let now = Instant::now();
    queue.upsert(named("a"), 1);
    let (key, _) = queue.pop().expect("it is active");
    let mut tolerant = pod("a", "1", "1Gi");
    tolerant["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    queue.upsert(Arc::new(as_pod(&tolerant)), 2);
    assert!(!queue.has_active(), "one attempt at a time");
    queue.unschedulable(&key, now);
    assert_eq!(queue.pop().map(|(_, waiting)| waiting.revision), Some(2));
}

#[test]
fn what_is_removed_comes_back_never() {
    let mut queue = queue();
    let now = Instant::now();
    for name in ["active", "waiting", "stuck", "flying"] {
        queue.upsert(named(name), 1);
    }
    let (active, _) = queue.pop().expect("active");
    queue.failed(&active, now);
    let (stuck, _) = queue.pop().expect("waiting");
    queue.unschedulable(&stuck, now);
    let (flying, _) = queue.pop().expect("stuck");
    let rest = PodKey::of(&named("flying"));
    for key in [&active, &stuck, &flying, &rest] {
        queue.remove(key);
    }
    queue.failed(&flying, now);
    queue.wake(now + LONGEST);
    queue.tick(now + LONGEST);
    assert!(queue.is_empty() && queue.pop().is_none());
}

#[test]
fn a_change_of_the_cluster_during_the_attempt_is_not_lost() {
    let mut queue = queue();
    let now = Instant::now();
    queue.upsert(named("a"), 1);
    let (key, _) = queue.pop().expect("it is active");
    queue.wake(now);
    queue.unschedulable(&key, now);
    queue.tick(now + FIRST);
    assert!(queue.has_active(), "it was decided about before the change");
}

#[test]
fn only_what_can_help_wakes_a_pod() {
    let mut queue = queue();
    let now = Instant::now();
    queue.upsert(named("a"), 1);
    let (key, _) = queue.pop().expect("it is active");
    queue.unschedulable(&key, now);
    let later = now + LONGEST;
    queue.queue.wake(FilterSet::from([Filter::TaintToleration]), |_, _| true, later);
    queue.queue.wake(FilterSet::from([Filter::NodeResourcesFit]), |_, _| false, later);
    assert!(!queue.has_active());
    // Without nodes nothing was refused: everything helps.
    queue.queue.wake(FilterSet::from([Filter::NodeResourcesFit]), |_, _| true, later);
    let (key, _) = queue.pop().expect("it is active");
    queue.queue.unschedulable(&key, FilterSet::default(), later);
    queue.queue.wake(FilterSet::from([Filter::TaintToleration]), |_, _| true, later + LONGEST);
    assert!(queue.has_active());
}

#[test]
fn a_change_that_cannot_help_does_not_disturb_an_attempt() {
    let mut queue = queue();
    let now = Instant::now();
    queue.upsert(named("a"), 1);
    let (key, _) = queue.pop().expect("it is active");
    queue.queue.wake(FilterSet::from([Filter::TaintToleration]), |_, _| true, now);
    queue.unschedulable(&key, now);
    assert_eq!(queue.next_due(), None, "it waits for a change, not for a time");
}
