#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn silence_is_measured_by_a_clock_that_cannot_be_turned() {
    let (silence, start) = (Silence::default(), Instant::now());
    let seconds = |seconds| start + Duration::from_secs(seconds);
    let long_ago: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        silence.of("n1", long_ago, seconds(0)),
        Duration::ZERO,
        "whatever the condition says"
    );
    assert_eq!(silence.of("n1", long_ago, seconds(90)), Duration::from_secs(90));
    assert_eq!(silence.of("n2", long_ago, seconds(90)), Duration::ZERO, "each node has its own");
    // It was heard in between.
    let again: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    assert_eq!(silence.of("n1", again, seconds(100)), Duration::ZERO);
    assert_eq!(silence.of("n1", again, seconds(130)), Duration::from_secs(30));
}
