//! Sets of indexes as statuses of Indexed Jobs write them: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// Some indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(pub BTreeSet<i32>);

impl Indexes {
    /// Reads them; what is at or above `limit`, or is no number, is left out.
    pub fn parse(text: Option<&str>, limit: i32) -> Self {
        let mut found = BTreeSet::new();
        for part in text.unwrap_or_default().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                found.extend(first.max(0)..=last.min(limit - 1));
            }
        }
        Self(found)
    }

    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => runs.push((*index, *index)),
            }
        }
        for (place, (first, last)) in runs.into_iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "2,3,9-12"] {
            assert_eq!(Indexes::parse(Some(text), 100).to_string(), text);
        }
        assert_eq!(Indexes::parse(Some("0-9,x,-3"), 5).to_string(), "0-4");
    }
}
