//! How much the log holds after an index, roughly: entries differ by a factor of ten thousand, so
//! their number does not say it.

use std::collections::VecDeque;

/// Bytes between two marks.
const STEP: u64 = 1 << 20;

/// Counts from when the log was opened: what it held then weighs nothing.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Bytes of all entries appended, those that were truncated again included.
    total: u64,
    /// An index, and the total before it.
    marks: VecDeque<(u64, u64)>,
}

impl Sizes {
    pub fn append(&mut self, index: u64, size: usize) {
        if self.marks.back().is_none_or(|(_, before)| before + STEP <= self.total) {
            self.marks.push_back((index, self.total));
        }
        self.total += size as u64;
    }

    /// Entries up to this one are gone.
    pub fn purge(&mut self, upto: u64) {
        while self.marks.get(1).is_some_and(|(index, _)| *index <= upto + 1) {
            self.marks.pop_front();
        }
    }

    /// Entries from this one on are gone; they will be counted again when they are replaced.
    pub fn truncate(&mut self, first: u64) {
        while self.marks.back().is_some_and(|(index, _)| *index >= first) {
            self.marks.pop_back();
        }
    }

    /// Bytes after an index: at most a step more than there are.
    pub fn after(&self, index: u64) -> u64 {
        let at = self.marks.partition_point(|(first, _)| *first <= index + 1);
        let before = at.checked_sub(1).and_then(|at| self.marks.get(at)).or(self.marks.front());
        before.map_or(0, |(_, before)| self.total - before)
    }

    /// The first entry of the newest ones that have so many bytes together, and at most a step
    /// more; `None`: all have less, as far as is known.
    pub fn first_of_last(&self, bytes: u64) -> Option<u64> {
        let from = self.total.checked_sub(bytes)?;
        let at = self.marks.partition_point(|(_, before)| *before <= from);
        self.marks.get(at.checked_sub(1)?).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    #[test]
    fn what_comes_after_an_index_is_known_to_a_step() {
        let mut sizes = Sizes::default();
        assert_eq!((sizes.after(0), sizes.first_of_last(0)), (0, None));
        (10..20).for_each(|index| sizes.append(index, MB / 2));
        let close = |bytes: u64, expected: usize| {
            let expected = expected as u64;
            assert!((expected..=expected + STEP).contains(&bytes), "{bytes}, not {expected}");
        };
        close(sizes.after(0), 5 * MB);
        close(sizes.after(9), 5 * MB);
        close(sizes.after(14), 5 * MB / 2);
        close(sizes.after(19), 0);
        assert_eq!(sizes.first_of_last(5 << 20), Some(10));
        assert_eq!(sizes.first_of_last(2 << 20), Some(16));
        sizes.purge(15);
        close(sizes.after(15), 2 * MB);
        assert_eq!(sizes.first_of_last(3 << 20), None, "no so much is left");
        assert_eq!(sizes.first_of_last(2 << 20), Some(16));
        assert_eq!(sizes.first_of_last((1 << 20) + 1), Some(16));
        assert_eq!(sizes.first_of_last(1 << 20), Some(18));
    }

    #[test]
    fn what_is_truncated_counts_for_nothing_that_stays() {
        let mut sizes = Sizes::default();
        (0..10).for_each(|index| sizes.append(index, MB));
        sizes.truncate(5);
        (5..7).for_each(|index| sizes.append(index, MB));
        assert_eq!(sizes.after(4), 2 << 20);
        assert_eq!(sizes.first_of_last(1 << 20), Some(6));
        assert_eq!(sizes.first_of_last(2 << 20), Some(5));
    }
}
