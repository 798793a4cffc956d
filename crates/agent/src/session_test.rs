#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const GIVEN: &str = "http://localhost:1";
const NAMED: &str = "http://127.0.0.1:1";

/// Sessions of which none ever comes up.
fn sessions(urls: &[&str]) -> (Sessions, mpsc::Receiver<Event>) {
    let introduction = Introduction {
        node_name: "n".into(),
        cluster_id: OnceLock::new(),
        node_json: Bytes::new(),
        incarnation: 1,
        number: 0,
        process: String::new(),
        without_services: false,
        connections: Arc::new(Connections::new(1, None)),
    };
    let (sender, receiver) = mpsc::channel(1024);
    let mut all = Sessions::new(Arc::new(introduction), sender, CancellationToken::new());
    for url in urls {
        all.add(url);
    }
    (all, receiver)
}

fn named(url: &str) -> bool {
    url == NAMED
}

fn nobody(_: &str) -> bool {
    false
}

#[tokio::test]
async fn of_two_urls_of_a_master_the_one_that_it_names_is_kept() {
    let (mut all, _events) = sessions(&[GIVEN, NAMED, "http://127.0.0.1:2"]);
    assert!(all.settle(GIVEN, "m1", named, nobody).is_empty());
    assert!(all.settle("http://127.0.0.1:2", "m2", nobody, nobody).is_empty());
    assert_eq!(all.settle(NAMED, "m1", named, nobody), [GIVEN]);
    assert!(!all.keeps(GIVEN) && all.keeps(NAMED) && all.keeps("http://127.0.0.1:2"));
    // Whichever of the two answers first.
    let (mut all, _events) = sessions(&[GIVEN, NAMED]);
    assert!(all.settle(NAMED, "m1", named, nobody).is_empty());
    assert_eq!(all.settle(GIVEN, "m1", named, named), [GIVEN]);
    assert!(!all.keeps(GIVEN) && all.keeps(NAMED));
}

#[tokio::test]
async fn the_url_that_works_is_not_given_up_for_one_that_does_not() {
    let (mut all, _events) = sessions(&[GIVEN, NAMED]);
    assert!(all.settle(NAMED, "m1", named, nobody).is_empty());
    // The named one is down by now, and comes back later.
    assert!(all.settle(GIVEN, "m1", named, nobody).is_empty());
    assert!(all.keeps(GIVEN) && all.keeps(NAMED));
    assert_eq!(all.settle(NAMED, "m1", named, nobody), [GIVEN]);
}

#[tokio::test]
async fn of_two_urls_that_nobody_names_one_is_kept() {
    let (mut all, _events) = sessions(&[GIVEN, NAMED]);
    assert!(all.settle(GIVEN, "m1", nobody, nobody).is_empty());
    assert_eq!(all.settle(NAMED, "m1", nobody, nobody), [GIVEN]);
    assert!(all.keeps(NAMED));
}
