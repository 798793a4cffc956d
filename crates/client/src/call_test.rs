use super::*;

async fn broken(repeat: Repeat) -> ClientError {
    let urls = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
    let pool = Pool::new(&urls, None).expect("two masters");
    let timeout = Duration::from_millis(150);
    let options = ClientOptions { timeout, ..ClientOptions::default() };
    // As a connection that breaks after the request was sent.
    let send = |_: Channel, _: Request<()>| async {
        Err::<Response<()>, _>(Status::unavailable("the connection broke"))
    };
    call(&pool, &options, "patch", repeat, (), send).await.expect_err("nobody answers")
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
