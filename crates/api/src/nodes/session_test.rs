use super::*;

/// The clock of these tests stands still unless somebody waits for it.
#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_its_time_keeps_no_other_session_waiting() {
    let turns = Semaphore::new(1);
    let mut turn = Turn::take(&turns).await;
    turn.wait_for(async {}).await;
    assert_eq!(turns.available_permits(), 0, "one that answers at once keeps its turn");
    let waiting = async {
        let mut turn = Turn::take(&turns).await;
        turn.pass();
    };
    let slow = turn.wait_for(waiting);
    tokio::time::timeout(20 * AT_ONCE, slow).await.expect("the other had its turn meanwhile");
    assert_eq!(turns.available_permits(), 1);
    turn.again().await;
    turn.again().await;
    assert_eq!(turns.available_permits(), 0);
    drop(turn);
    assert_eq!(turns.available_permits(), 1);
}
