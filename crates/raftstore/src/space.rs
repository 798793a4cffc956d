//! How much room is left: for the size budget, and on the disk.
//!
//! Near the budget this member refuses new event objects, at it everything that stores something,
//! and raises the NOSPACE alarm, so that all members do. Deletions and compaction go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use quorate_store::{
    Alarm, AlarmKind, Command, Op, RequestOp, Store as _, StoreError, needs_space,
};

use crate::store::RaftStore;

/// How often the room is measured.
const INTERVAL: Duration = Duration::from_secs(1);
/// Where the registry keeps event objects, the first ones to be refused.
const EVENTS: &[u8] = b"/registry/events/";

/// How short room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Below 80 % of the budget: this member's alarm is lifted.
    Low = 0,
    None = 1,
    /// From 90 % on no event objects are stored.
    Events = 2,
    /// The budget, or the disk, is used up.
    Full = 3,
}

impl Pressure {
    fn of(bytes: u64, budget: u64, free: u64, reserve: u64) -> Self {
        let percent = |part: u64| budget / 100 * part;
        match bytes {
            _ if free < reserve || bytes >= budget => Self::Full,
            _ if bytes >= percent(90) => Self::Events,
            _ if bytes >= percent(80) || free < reserve * 2 => Self::None,
            _ => Self::Low,
        }
    }
}

/// The present pressure; asked before every proposal.
#[derive(Debug, Default)]
pub(crate) struct Room(AtomicU8);

impl Room {
    fn set(&self, pressure: Pressure) {
        self.0.store(pressure as u8, Relaxed);
    }

    /// Refuses what there is no room for.
    pub(crate) fn check(&self, command: &Command) -> Result<(), StoreError> {
        let pressure = self.0.load(Relaxed);
        if pressure >= Pressure::Full as u8 && needs_space(command) {
            let reason = "the size budget or the disk of this member is used up";
            return Err(StoreError::NoSpace(reason.into()));
        }
        if pressure >= Pressure::Events as u8 && stores_events(command) {
            let reason = "more than 90 % of the size budget are used, events are refused first";
            return Err(StoreError::NoSpace(reason.into()));
        }
        Ok(())
    }
}

fn stores_events(command: &Command) -> bool {
    fn any(ops: &[RequestOp]) -> bool {
        ops.iter().any(|op| match &op.op {
            Some(Op::Put(put)) => put.key.starts_with(EVENTS),
            Some(Op::Txn(nested)) => any(&nested.success) || any(&nested.failure),
            _ => false,
        })
    }
    command.txns().iter().any(|txn| any(&txn.success) || any(&txn.failure))
}

/// Bytes that are free for us on the file system; a lot when it cannot be asked.
fn free_bytes(path: &Path) -> u64 {
    match nix::sys::statvfs::statvfs(path) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "cannot ask for free space");
            u64::MAX
        }
    }
}

/// Measures the room of one member.
pub(crate) struct SpaceWatch {
    pub store: Arc<RaftStore>,
    pub data_dir: PathBuf,
    pub budget: u64,
    pub reserve: u64,
    /// The compaction after which the files were rewritten.
    pub rewritten: u64,
}

impl SpaceWatch {
    /// The task "space"; what fails is tried again at the next turn.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (bytes, free) = (self.store.state.backend.disk_bytes(), free_bytes(&self.data_dir));
            let pressure = Pressure::of(bytes, self.budget, free, self.reserve);
            self.store.room.set(pressure);
            if let Err(error) = self.alarm(pressure, bytes, free).await {
                tracing::warn!(%error, "the NOSPACE alarm could not be switched yet");
            }
            if pressure >= Pressure::Events {
                self.rewrite().await;
            }
        }
    }

    async fn alarm(&self, pressure: Pressure, bytes: u64, free: u64) -> Result<(), StoreError> {
        let alarm = Alarm { member: self.store.id, kind: AlarmKind::NoSpace.into() };
        let on = self.store.alarms().borrow().contains(&alarm);
        if pressure == Pressure::Full && !on {
            tracing::error!(bytes, self.budget, free, "no space: only deletions are accepted");
            self.store.set_alarm(alarm, true).await?;
        } else if pressure == Pressure::Low && on {
            // Whoever raised it, it says something of this member, and an earlier life of this
            // process may have been the one: who fills a disk often dies of it.
            tracing::info!(bytes, self.budget, free, "there is space again");
            self.store.set_alarm(alarm, false).await?;
        }
        Ok(())
    }

    /// Gives back what a compaction has freed, once for each.
    async fn rewrite(&mut self) {
        let compacted = self.store.state.machine.compact_revision();
        if compacted == self.rewritten || self.store.state.machine.compacting() {
            return;
        }
        self.rewritten = compacted;
        if let Err(error) = self.store.defragment().await {
            tracing::warn!(%error, "the files could not be rewritten");
        }
    }
}

#[cfg(test)]
#[path = "space_test.rs"]
mod tests;
