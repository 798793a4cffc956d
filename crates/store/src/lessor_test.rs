#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use super::*;

fn lessor(term: Option<Term>) -> Arc<Lessor> {
    let lessor = Arc::new(Lessor::default());
    lessor.lead(term);
    lessor.change(vec![
        LeaseChange::Granted { id: 1, ttl_seconds: 10 },
        LeaseChange::Granted { id: 2, ttl_seconds: 20 },
    ]);
    lessor
}

/// Runs the expiry; revocations that `apply` accepts are applied at once. Returns their log.
fn run(
    lessor: &Arc<Lessor>,
    propose: impl Fn(LeaseId, Term) -> Revocation + Send + Sync + 'static,
) -> Arc<Mutex<Vec<(LeaseId, Term, Instant)>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (lessor, proposed) = (Arc::clone(lessor), Arc::clone(&log));
    tokio::spawn(async move {
        lessor
            .expire(|id, term| {
                proposed.lock().push((id, term, Instant::now()));
                let came = propose(id, term);
                if came == Revocation::Done {
                    lessor.change(vec![LeaseChange::Revoked { id }]);
                }
                std::future::ready(came)
            })
            .await;
    });
    log
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_its_time_is_over_and_not_before() {
    let lessor = lessor(Some(3));
    let begin = Instant::now();
    let log = run(&lessor, |_, _| Revocation::Done);
    sleep(5).await;
    assert_eq!(lessor.renew(1).await, Ok(10));
    assert_eq!(lessor.remaining(1).unwrap().unwrap().1.as_secs(), 10);
    sleep(60).await;
    let ended: Vec<_> =
        log.lock().iter().map(|(id, term, at)| (*id, *term, (*at - begin).as_secs())).collect();
    assert_eq!(ended, [(1, 3, 15), (2, 3, 20)]);
    assert_eq!(lessor.renew(1).await, Ok(0));
    assert_eq!(lessor.remaining(1), Ok(None));
    assert_eq!(lessor.ids(), Vec::<LeaseId>::new());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_lease_its_full_time() {
    let lessor = lessor(None);
    let log = run(&lessor, |_, _| Revocation::Done);
    // A follower ends nothing, however long it takes.
    sleep(100).await;
    assert_eq!((lessor.renew(1).await, lessor.remaining(1)), (Err(NotLeading), Err(NotLeading)));
    lessor.lead(Some(7));
    sleep(9).await;
    // The same again: the same term does not begin twice.
    lessor.lead(Some(7));
    assert_eq!(log.lock().len(), 0);
    sleep(2).await;
    assert_eq!(log.lock().iter().map(|(id, term, _)| (*id, *term)).collect::<Vec<_>>(), [(1, 7)]);
    lessor.lead(None);
    lessor.lead(Some(9));
    sleep(19).await;
    assert_eq!(log.lock().len(), 1);
    sleep(2).await;
    assert_eq!(log.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_being_revoked_is_not_renewed() {
    let lessor = lessor(Some(1));
    let ours = Arc::clone(&lessor);
    tokio::spawn(async move {
        // The revocation takes its time.
        ours.expire(|_, _| async {
            sleep(3).await;
            Revocation::Done
        })
        .await;
    });
    sleep(11).await;
    let ours = Arc::clone(&lessor);
    let renewed = tokio::spawn(async move { ours.renew(1).await });
    sleep(1).await;
    assert!(!renewed.is_finished(), "the answer is not known yet");
    lessor.change(vec![LeaseChange::Revoked { id: 1 }]);
    assert_eq!(renewed.await.unwrap(), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_fails_is_tried_again_in_the_same_term_only() {
    let lessor = lessor(Some(1));
    let log = run(&lessor, |_, _| Revocation::NotProposed);
    sleep(12).await;
    let tried = log.lock().len();
    assert!(tried > 1, "{tried}");
    // Not done, so the client may still rescue it.
    assert_eq!(lessor.renew(1).await, Ok(10));
    lessor.lead(None);
    log.lock().clear();
    sleep(60).await;
    assert_eq!(log.lock().len(), 0);
}

/// Its revocation is in the log, perhaps: who is told that the lease is renewed must not lose it.
#[tokio::test(start_paused = true)]
async fn a_lease_whose_revocation_may_be_applied_is_not_renewed_in_that_term() {
    let lessor = lessor(Some(1));
    let log = run(&lessor, |_, _| Revocation::Unknown);
    sleep(12).await;
    let tried = log.lock().len();
    assert!(tried > 1, "{tried}");
    let renewal = |lessor: Arc<Lessor>| async move {
        tokio::time::timeout(Duration::from_secs(60), lessor.renew(1)).await
    };
    assert!(renewal(Arc::clone(&lessor)).await.is_err(), "renewed in the same term");
    lessor.lead(None);
    lessor.lead(Some(1));
    assert!(renewal(Arc::clone(&lessor)).await.is_err(), "renewed in the same term, led again");
    // What the term before has proposed is refused now.
    lessor.lead(Some(2));
    assert_eq!(lessor.renew(1).await, Ok(10));
    // And what was applied after all ends the wait.
    sleep(12).await;
    let waiting = tokio::spawn(renewal(Arc::clone(&lessor)));
    sleep(1).await;
    lessor.change(vec![LeaseChange::Revoked { id: 1 }]);
    assert_eq!(waiting.await.unwrap(), Ok(Ok(0)));
}

/// The first attempt may still be applied, though a later one was not even proposed.
#[tokio::test(start_paused = true)]
async fn a_doubt_outlasts_a_later_attempt_that_was_not_proposed() {
    let lessor = lessor(Some(1));
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let first = move || attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
    let log = run(
        &lessor,
        move |_, _| {
            if first() { Revocation::Unknown } else { Revocation::NotProposed }
        },
    );
    sleep(12).await;
    assert!(log.lock().len() > 2, "{:?}", log.lock());
    let renewed = tokio::time::timeout(Duration::from_secs(60), lessor.renew(1)).await;
    assert!(renewed.is_err(), "renewed though it may be revoked at any time");
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_leases_goes_by_in_groups() {
    let lessor = lessor(Some(1));
    let many = (10..5010).map(|id| LeaseChange::Granted { id, ttl_seconds: 2 }).collect();
    lessor.change(many);
    let log = run(&lessor, |_, _| Revocation::Done);
    sleep(3).await;
    assert_eq!(log.lock().len(), 5000);
    assert_eq!(lessor.ids(), [1, 2]);
}
