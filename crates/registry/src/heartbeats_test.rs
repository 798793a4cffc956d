use super::*;

fn heard(node: &str, ago: Duration) -> Heartbeats {
    let heartbeats = Heartbeats::default();
    // The machine has been up for longer.
    heartbeats.record_all([node], Instant::now().checked_sub(ago).expect("an earlier time"));
    heartbeats
}

/// Far more than a test takes.
const GRACE: Duration = Duration::from_secs(10);

fn question(nodes: &[&str]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "nodes": nodes })).expect("JSON")
}

fn note(ours: &Heartbeats, theirs: &Heartbeats) -> usize {
    let answer = serde_json::from_slice(&theirs.answer(&question(&["n1", "n2"])));
    ours.note(answer.expect("an answer"), Instant::now(), GRACE)
}

#[test]
fn what_another_master_hears_counts_but_is_not_heard_here() {
    let (ours, theirs) = (heard("n1", 3 * GRACE), heard("n1", GRACE / 4));
    assert_eq!(note(&ours, &theirs), 1);
    assert!(ours.last("n1").expect("known").elapsed() < GRACE);
    assert!(ours.last_here("n1").expect("known").elapsed() >= 3 * GRACE);
}

#[test]
fn what_nobody_hears_stays_silent_and_time_does_not_go_back() {
    let (ours, theirs) = (heard("n1", 3 * GRACE), heard("n1", 5 * GRACE));
    let before = ours.last("n1");
    assert_eq!(note(&ours, &theirs), 0);
    assert_eq!(ours.last("n1"), before);
}

#[test]
fn hearsay_is_not_passed_on() {
    let (deaf, hears) = (heard("n1", 3 * GRACE), heard("n1", Duration::ZERO));
    note(&deaf, &hears);
    let third = heard("n1", 3 * GRACE);
    assert_eq!(note(&third, &deaf), 0);
}

#[test]
fn a_node_that_only_others_have_ever_heard_is_alive() {
    let (ours, theirs) = (Heartbeats::default(), heard("n1", Duration::ZERO));
    assert_eq!(note(&ours, &theirs), 1);
    assert!(ours.last("n1").expect("hearsay").elapsed() < GRACE);
    assert!(ours.last_here("n1").is_none() && ours.last("n2").is_none());
    assert!(theirs.answer(b"what?").is_empty());
}
