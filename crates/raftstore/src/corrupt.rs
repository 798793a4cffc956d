//! A member whose data is wrong: it serves nobody and does not lead, until it is rebuilt from the
//! other members ([`crate::rebuild`]).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use quorate_store::{Alarm, AlarmKind, Store as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::restore;
use crate::store::RaftStore;

/// Pause before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The task "corruption": obeys this member's CORRUPT alarm, and looks for a reason to raise it.
pub(crate) async fn watch(store: Arc<RaftStore>, scrub_every: Duration) {
    let own = Alarm { member: store.id, kind: AlarmKind::Corrupt.into() };
    if restore::is_rebuilt(&store.data_dir) {
        lift(&store, own).await;
    }
    let mut alarms = store.alarms();
    let mut tick = interval_at(Instant::now() + scrub_every, scrub_every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let on = alarms.borrow_and_update().contains(&own);
        obey(&store, on).await;
        tokio::select! {
            // The sender lives in the store.
            _ = alarms.changed() => {}
            _ = tick.tick() => scrub(&store, own).await,
        }
    }
}

async fn lift(store: &RaftStore, own: Alarm) {
    // Rebuilt data is sound data: it may be read to learn how far it is.
    loop {
        match store.set_alarm(own, false).await {
            Ok(()) => return restore::forget_rebuilt(&store.data_dir),
            Err(error) => tracing::debug!(%error, "the CORRUPT alarm is not lifted yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn obey(store: &RaftStore, corrupt: bool) {
    if store.state.corrupt.swap(corrupt, Relaxed) == corrupt {
        return;
    }
    store.raft.runtime_config().elect(!corrupt);
    if !corrupt {
        tracing::info!("this member's data counts as sound again");
        return;
    }
    tracing::error!("this member's data is wrong; it serves nobody until it is rebuilt");
    if let Err(error) = store.hand_over().await {
        tracing::warn!(%error, "leadership was not handed over");
    }
}

/// Reads everything and compares it with the hash that was kept while it was applied.
async fn scrub(store: &RaftStore, own: Alarm) {
    match store.scrub().await {
        Ok(true) => tracing::debug!("the whole state was read and is as it was written"),
        Ok(false) => {
            tracing::error!("the state on disk is not what was written");
            if let Err(error) = store.set_alarm(own, true).await {
                tracing::warn!(%error, "the CORRUPT alarm could not be raised");
            }
        }
        // What RocksDB's own checksums find ends here.
        Err(error) => store.fatal.signal(format!("reading the state failed: {error}")),
    }
}
