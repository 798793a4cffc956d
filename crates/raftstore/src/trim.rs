//! Keeps the log short in bytes. openraft counts its entries, of which one may hold hundreds of
//! commands: by their number alone, the log would grow to gigabytes between two snapshots.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{MissedTickBehavior, interval};

use crate::log::LogReader;
use crate::types::Raft;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Trim {
    pub raft: Raft,
    pub log: LogReader,
    /// Bytes of the log between two snapshots.
    pub snapshot_bytes: u64,
    /// Bytes that stay in the log though a snapshot has them.
    pub keep_bytes: u64,
}

impl Trim {
    /// The task "trim" of every member; it ends with raft, and by the caller.
    pub(crate) async fn run(self) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.look().await.is_none() {
                return;
            }
        }
    }

    /// `None`: raft has ended.
    async fn look(&self) -> Option<()> {
        let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index);
        let (snapshot, purged) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (index(metrics.snapshot), index(metrics.purged))
        };
        if self.log.bytes_after(snapshot) >= self.snapshot_bytes {
            self.raft.trigger().snapshot().await.ok()?;
        }
        // Each removal leaves a tombstone that every iterator has to pass: rarely, and much.
        if self.log.bytes_after(purged) >= 2 * self.keep_bytes
            && let Some(first) = self.log.first_of_last(self.keep_bytes)
            && let upto = snapshot.min(first.saturating_sub(1))
            && upto > purged
        {
            self.raft.trigger().purge_log(upto).await.ok()?;
        }
        Some(())
    }
}
