use super::*;

#[tokio::test]
async fn a_stall_counts_at_once_and_when_the_sleeper_has_woken() {
    let stalls = Stalls::watch();
    // The sleeper falls asleep, and in this runtime nobody else runs after that.
    tokio::task::yield_now().await;
    std::thread::sleep(Duration::from_millis(200));
    assert!(stalls.take_ms() >= 150);
    tokio::time::sleep(2 * SLEEP).await;
    assert!(stalls.take_ms() >= 150);
}
