//! How long a failed container, image or sandbox waits for its next try.
//!
//! 1 s, doubling to 5 minutes. Kubernetes begins at 10 s; a local cluster's user waits for
//! every one of them, and five tries in the first half minute harm nobody.

use jiff::{SignedDuration, Timestamp};

/// Before the second try.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
/// Between any two.
const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran for this long has not failed quickly: its count begins anew.
const GOOD_RUN: SignedDuration = SignedDuration::from_mins(10);

/// The wait after so many failures in a row (the first failure: 0).
#[must_use]
pub fn delay(failures: u32) -> SignedDuration {
    let factor = 1i32.checked_shl(failures.min(16)).unwrap_or(i32::MAX);
    (FIRST * factor).min(LONGEST)
}

/// Did a container that ran from `started` to `ended` run long enough to be forgiven?
#[must_use]
pub fn was_good(started: Option<Timestamp>, ended: Timestamp) -> bool {
    started.is_some_and(|started| ended.duration_since(started) >= GOOD_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes() {
        let seconds: Vec<i64> = (0..12).map(|n| delay(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(delay(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn ten_minutes_of_running_are_good() {
        let start = Timestamp::UNIX_EPOCH;
        assert!(was_good(Some(start), start + SignedDuration::from_mins(10)));
        assert!(!was_good(Some(start), start + SignedDuration::from_mins(9)));
        assert!(!was_good(None, start));
    }
}
