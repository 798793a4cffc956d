use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Two masters; the first attempt breaks off, and what follows is answered with `then`.
async fn broken_and(repeat: Repeat, then: Status) -> ClientError {
    let urls = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
    let pool = Pool::new(&urls, None).expect("two masters");
    let timeout = Duration::from_millis(150);
    let options = ClientOptions { timeout, ..ClientOptions::default() };
    let sent = AtomicUsize::new(0);
    let send = |_: Channel, _: Request<()>| async {
        let first = sent.fetch_add(1, Ordering::Relaxed) == 0;
        Err::<Response<()>, _>(if first { a_break() } else { then.clone() })
    };
    call(&pool, &options, "patch", repeat, (), send).await.expect_err("nobody says yes")
}

/// As a connection that breaks after the request was sent.
fn a_break() -> Status {
    Status::unavailable("the connection broke")
}

async fn broken(repeat: Repeat) -> ClientError {
    broken_and(repeat, a_break()).await
}

#[tokio::test]
async fn a_write_without_any_answer_is_in_doubt() {
    for repeat in [Repeat::Idempotent, Repeat::Unsafe] {
        let error = broken(repeat).await;
        assert!(error.outcome_unknown(), "{repeat:?}: {error:?}");
    }
    let error = broken(Repeat::Safe).await;
    assert!(!error.outcome_unknown() && error.retryable(), "{error:?}");
}

/// The refusal may be the work of the attempt before: the revision that a patch named, say, is
/// not the newest any more.
#[tokio::test]
async fn a_refusal_after_an_attempt_in_doubt_leaves_it_in_doubt() {
    let error = broken_and(Repeat::Idempotent, Status::aborted("somebody was faster")).await;
    assert!(error.outcome_unknown(), "{error:?}");
    let error = broken_and(Repeat::Safe, Status::not_found("no such pod")).await;
    assert!(error.is_not_found(), "{error:?}");
}
