#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn compaction_by_revisions_keeps_so_many() {
    let compactor = Compactor::new(AutoCompaction::Revisions(100));
    assert_eq!(compactor.due(100, 0), None);
    assert_eq!(compactor.due(110, 0), None, "not for a few revisions");
    assert_eq!(compactor.due(111, 0), Some(11));
    assert_eq!(compactor.due(5000, 4890), None);
    assert_eq!(Compactor::new(AutoCompaction::Off).due(5000, 0), None);
}

#[tokio::test]
async fn compaction_by_age_keeps_what_is_younger() {
    let age = Duration::from_secs(100);
    let mut compactor = Compactor::new(AutoCompaction::Age(age));
    let now = Instant::now();
    // As if time had gone by.
    let begin = now.checked_sub(Duration::from_secs(195)).unwrap();
    for second in 0..=195 {
        compactor.note(1000 + second, begin + Duration::from_secs(second));
    }
    let due = compactor.due(2000, 0).unwrap();
    let oldest_kept = 1000 + 95;
    assert!(due <= oldest_kept && due + 10 >= oldest_kept, "{due}");
    assert_eq!(compactor.due(2000, due), None);
    let mut young = Compactor::new(AutoCompaction::Age(age));
    young.note(7, now);
    assert_eq!(young.due(2000, 0), None, "a new leader waits until it knows");
}

#[test]
fn the_majority_is_right_and_one_against_one_is_open() {
    let judge = |answers: &[(MemberId, bool)], members: usize| {
        let agree = answers.iter().filter(|(_, equal)| *equal).count() + 1;
        wrong(answers, 1, agree * 2 > members)
    };
    assert_eq!(judge(&[(2, true), (3, false)], 3), [3]);
    assert_eq!(judge(&[(2, false), (3, false)], 3), [1]);
    assert_eq!(judge(&[(2, false)], 3), Vec::<MemberId>::new());
    assert_eq!(judge(&[(2, false)], 2), Vec::<MemberId>::new());
    assert_eq!(judge(&[(2, true), (3, false), (4, false)], 5), Vec::<MemberId>::new());
}
