#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

/// The clock of these tests stands still unless somebody waits for it.
#[tokio::test(start_paused = true)]
async fn a_search_looks_again_soon_then_less_often_and_no_longer_than_it_may() {
    let limit = Duration::from_secs(1);
    let news = watch::Sender::new(Leadership { term: 1, leader: None, ready: None });
    let mut search = Search::new(news.subscribe(), limit);
    let start = Instant::now();
    // A leader that has just been elected takes writes after some milliseconds.
    assert!(search.again().await);
    assert!(start.elapsed() <= Duration::from_millis(5), "{:?}", start.elapsed());
    let mut rounds = 0;
    while search.again().await {
        rounds += 1;
    }
    assert_eq!(start.elapsed(), limit);
    assert!((10..40).contains(&rounds), "{rounds}");
}

#[tokio::test(start_paused = true)]
async fn news_end_a_pause() {
    let news = watch::Sender::new(Leadership { term: 1, leader: None, ready: None });
    let mut search = Search::new(news.subscribe(), Duration::from_secs(1));
    for _ in 0..6 {
        assert!(search.again().await);
    }
    let start = Instant::now();
    news.send_modify(|leadership| leadership.term = 2);
    assert!(search.again().await);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(search.again().await);
    assert!(start.elapsed() <= FIRST_PAUSE, "it begins anew: {:?}", start.elapsed());
}
