//! The part of the crate `base2histogram` that openraft uses, put in its place by
//! `[patch.crates-io]`.
//!
//! openraft counts sizes of batches in some fifteen histograms. The original computes tables for
//! sixteen resolutions at the first use, though openraft uses one: 24 MB of anonymous memory in
//! every master, half of what an idle master may weigh. Here a histogram is 65 counters, one for
//! each power of two, which is as much as anybody reads from those statistics.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for 0, one for each power of two.
const BUCKETS: usize = 65;

/// Counts values by their order of magnitude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    buckets: [u64; BUCKETS],
    _data: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Nothing counted.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: [0; BUCKETS], _data: PhantomData }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = u64::BITS - value.leading_zeros();
        if let Some(count) = self.buckets.get_mut(bucket as usize) {
            *count = count.saturating_add(times);
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The smallest power of two (or 0) of the bucket below or in which the share `p` (0 to 1) of
    /// all values lies; 0 when there are none.
    #[must_use]
    pub fn percentile(&self, p: f64) -> u64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        #[allow(clippy::cast_sign_loss)]
        let rank = ((self.total() as f64 * p).ceil() as u64).max(1);
        let mut seen = 0_u64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return if bucket == 0 { 0 } else { 1 << (bucket - 1) };
            }
        }
        0
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Percentiles of a [`Histogram`]; each is the lower end of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "[{samples} samples, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}]")
    }
}

/// Histograms with names, for people.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> AsciiChart<T> {
    /// An empty chart.
    #[must_use]
    pub fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// Adds a histogram.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.series.push((name.into(), histogram));
        self
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.series.iter().try_for_each(|(name, histogram)| {
            writeln!(f, "{name}: {}", histogram.percentile_stats())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_lower_ends_of_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in [0, 1, 5, 5, 5, 100, 1000, u64::MAX] {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50), (8, 0, 4));
        assert_eq!((stats.p99_9, histogram.percentile(0.75)), (1 << 63, 64));
    }
}
