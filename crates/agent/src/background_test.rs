#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::pods::fake::Fake;

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_is_told_and_that_it_answers_again() {
    let fake = Arc::new(Fake::default());
    let (sender, mut heard) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    events(fake.clone(), sender, cancel.clone());
    let mut next = async || {
        let event = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
        event.expect("nothing is told").unwrap()
    };
    assert!(matches!(next().await, Internal::Runtime(None)));
    assert!(matches!(next().await, Internal::Resync));
    fake.state.lock().hangs = true;
    let Internal::Runtime(Some(trouble)) = next().await else { panic!("no trouble") };
    assert!(trouble.contains("in time"), "{trouble}");
    // And as long as it lasts.
    assert!(matches!(next().await, Internal::Runtime(Some(_))));
    fake.state.lock().hangs = false;
    loop {
        match next().await {
            Internal::Runtime(Some(_)) => {}
            Internal::Runtime(None) => break,
            _ => panic!("told of something else first"),
        }
    }
    assert!(matches!(next().await, Internal::Resync), "what happened meanwhile is looked for");
    cancel.cancel();
}
