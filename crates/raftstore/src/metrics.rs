//! What is counted and timed in the store, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quorate_store::metrics::{Histogram, counter, gauge};

/// Counters and histograms of one member.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Proposals that came to nothing, as far as is known.
    pub failed: AtomicU64,
    /// Leaders that this member has seen.
    pub leader_changes: AtomicU64,
    /// From the first change of a group until its sync.
    pub log_sync: Histogram,
    /// Writing one group of applied entries.
    pub apply: Histogram,
    /// Entries per group of the log.
    pub log_entries: AtomicU64,
    /// Groups of the log.
    pub log_groups: AtomicU64,
    /// Making a snapshot.
    pub snapshot_build: Histogram,
    /// Installing a received one.
    pub snapshot_install: Histogram,
}

/// What is known at the moment of asking, and is not in the store's status.
pub(crate) struct Now {
    pub in_flight: usize,
    pub committed: u64,
    pub watchers: usize,
    pub leases: usize,
}

impl Metrics {
    /// Appends everything that the status does not say. Names are etcd's where the meaning is.
    pub(crate) fn write(&self, text: &mut String, now: &Now) {
        for (name, help, value) in [
            ("etcd_server_proposals_pending", "Proposals in flight.", now.in_flight as f64),
            (
                "etcd_server_proposals_committed_total",
                "Last index known to be committed.",
                now.committed as f64,
            ),
            (quorate_store::metrics::WATCHERS, "Watchers.", now.watchers as f64),
            ("quorate_leases", "Leases.", now.leases as f64),
        ] {
            gauge(text, name, help, value);
        }
        for (name, help, value) in [
            ("etcd_server_proposals_failed_total", "Failed proposals.", &self.failed),
            ("etcd_server_leader_changes_seen_total", "Leaders seen.", &self.leader_changes),
            ("quorate_log_groups_total", "Groups written to the log.", &self.log_groups),
            ("quorate_log_entries_total", "Entries written to the log.", &self.log_entries),
        ] {
            counter(text, name, help, value.load(Relaxed));
        }
        for (name, help, histogram) in [
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "Writing and syncing one group of the log.",
                &self.log_sync,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "Applying one group of entries.",
                &self.apply,
            ),
            (
                "etcd_debugging_snap_save_total_duration_seconds",
                "Making a snapshot.",
                &self.snapshot_build,
            ),
            (
                "quorate_snapshot_install_duration_seconds",
                "Installing a snapshot.",
                &self.snapshot_install,
            ),
        ] {
            histogram.write(text, name, help);
        }
    }
}
