//! Times as Kubernetes writes them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// The present, by the wall clock.
#[must_use]
pub fn timestamp() -> Timestamp {
    // A clock beyond the year 9999 is as wrong as any.
    Timestamp::try_from(quorate_clock::now()).unwrap_or(Timestamp::MAX)
}

/// The present, as objects carry it (whole seconds).
#[must_use]
pub fn now() -> Time {
    Time(timestamp())
}

/// The present with microseconds.
#[must_use]
pub fn now_micro() -> MicroTime {
    MicroTime(timestamp())
}

/// Parses RFC 3339.
///
/// # Errors
/// When the text is no time.
pub fn parse(text: &str) -> Result<Timestamp, jiff::Error> {
    text.parse()
}

/// `2026-01-31T12:00:00Z`
#[must_use]
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long ago, as `kubectl` prints it: `5s`, `3m12s`, `4h5m`, `2d`, `<invalid>`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    duration(now.as_second() - since.as_second())
}

/// [`age`] of a time that may be missing: `<unknown>`.
#[must_use]
pub fn age_of(since: Option<&Time>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".into(), |since| age(since.0, now))
}

/// A number of seconds as `kubectl` prints it.
#[must_use]
pub fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        // Clocks differ a little; kubectl forgives one second too.
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}
