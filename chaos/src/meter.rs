//! Throughput, latency and errors over time.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::history::Nanos;

/// Length of one bucket.
pub const BUCKET_MS: u64 = 100;
const BUCKET: Nanos = BUCKET_MS * 1_000_000;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With an answer of the store.
    Answered,
    /// With a definite refusal: no leader, overloaded, …
    Refused,
    /// With "nobody knows".
    Unknown,
}

/// Calls that ended within one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Answered.
    pub answered: u32,
    /// Refused.
    pub refused: u32,
    /// Unknown.
    pub unknown: u32,
    /// The slowest answer, in microseconds.
    pub slowest_us: u64,
    /// All answers together, in microseconds.
    pub total_us: u64,
}

/// Counts calls.
#[derive(Debug, Default)]
pub struct Meter {
    buckets: Mutex<Vec<Bucket>>,
}

impl Meter {
    /// One that all windows of a run share.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Counts one call.
    pub fn count(&self, sent: Nanos, ended: Nanos, kind: Kind) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(ended / BUCKET).unwrap_or(0);
        if buckets.len() <= index {
            buckets.resize(index + 1, Bucket::default());
        }
        let bucket = &mut buckets[index];
        match kind {
            Kind::Answered => {
                let took = ended.saturating_sub(sent) / 1_000;
                bucket.answered += 1;
                bucket.total_us += took;
                bucket.slowest_us = bucket.slowest_us.max(took);
            }
            Kind::Refused => bucket.refused += 1,
            Kind::Unknown => bucket.unknown += 1,
        }
    }

    /// All buckets so far, from the beginning of the run.
    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All calls so far.
    #[must_use]
    pub fn totals(&self) -> Bucket {
        self.buckets().into_iter().fold(Bucket::default(), Bucket::and)
    }
}

impl Bucket {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
            slowest_us: self.slowest_us.max(other.slowest_us),
            total_us: self.total_us + other.total_us,
        }
    }
}

/// At most `most` buckets with the same calls, and how long each of them is in milliseconds.
#[must_use]
pub fn coarser(buckets: &[Bucket], most: usize) -> (Vec<Bucket>, u64) {
    let size = buckets.len().div_ceil(most.max(1)).max(1);
    let sums = buckets
        .chunks(size)
        .map(|chunk| chunk.iter().copied().fold(Bucket::default(), Bucket::and));
    (sums.collect(), BUCKET_MS * u64::try_from(size).unwrap_or(1))
}

#[cfg(test)]
#[path = "meter_test.rs"]
mod tests;
