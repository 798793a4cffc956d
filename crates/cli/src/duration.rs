//! Durations as users write them: `30s`, `1m30s`, `250ms`, `0`, `10` (seconds).

use std::time::Duration;

/// Parses a duration.
///
/// # Errors
/// Says what is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s, 1m30s or 250ms");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        rest = &rest[end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let millis = |text: &str| parse(text).map(|d| d.as_millis());
        assert_eq!(millis("10"), Ok(10_000));
        assert_eq!(millis("0"), Ok(0));
        assert_eq!(millis("1m30s"), Ok(90_000));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1.5h"), Ok(5_400_000));
        for wrong in ["", "s", "5x", "-1s", "1m 2s", "1..5s"] {
            assert!(millis(wrong).is_err(), "{wrong:?}");
        }
    }
}
