//! Metrics in Prometheus' text format, without a registry: each part of the store keeps its own
//! numbers in atomics and writes them when it is asked.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of watchers, under etcd's name.
pub const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

/// Appends a gauge.
pub fn gauge(text: &mut String, name: &str, help: &str, value: f64) {
    single(text, name, help, "gauge", value);
}

/// Appends a counter.
pub fn counter(text: &mut String, name: &str, help: &str, value: u64) {
    // Exact below 2^53.
    single(text, name, help, "counter", value as f64);
}

fn single(text: &mut String, name: &str, help: &str, kind: &str, value: f64) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

/// Buckets of a [`Histogram`], the one without a bound not counted.
const BUCKETS: usize = 14;
/// Bound of the first bucket in microseconds; each bound is twice the one before.
const FIRST_US: u64 = 100;

/// How long something takes: buckets from 0.1 ms to 0.8 s.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BUCKETS).find(|n| us <= FIRST_US << n).unwrap_or(BUCKETS);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Appends it, in seconds.
    pub fn write(&self, text: &mut String, name: &str, help: &str) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (n, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Relaxed);
            let bound = match n {
                BUCKETS => "+Inf".to_owned(),
                n => ((FIRST_US << n) as f64 / 1e6).to_string(),
            };
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let sum = self.sum_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {total}");
    }
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
