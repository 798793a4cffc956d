//! Decodes pods and nodes ahead, on every master, when they have not changed for a moment.
//!
//! A new leader's scheduler and sessions read all of them at once before the first binding, and
//! to decode a hundred thousand pods then would take longer than the election.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_objects::kinds;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::object::Object;

/// What changes again within this time is not worth the effort yet.
const SETTLED: Duration = Duration::from_secs(2);
/// Changes that wait for that; more are decoded when they are read.
const QUEUE: usize = 256 * 1024;
/// Objects decoded before others get their turn.
const AT_ONCE: usize = 64;

type Noted = (Instant, Weak<Object>);

/// Where the cache's feed notes what is new.
pub(crate) struct Warmer(mpsc::Sender<Noted>);

impl Warmer {
    /// Starts the task "cache warmer"; it ends with `cancel`.
    pub fn start(cancel: CancellationToken) -> Self {
        let (sender, noted) = mpsc::channel(QUEUE);
        tokio::spawn(cancel.run_until_cancelled_owned(run(noted)));
        Self(sender)
    }

    pub fn note(&self, object: &Arc<Object>) {
        if *object.kind == kinds::POD || *object.kind == kinds::NODE {
            // A full queue costs time later, nothing else.
            let _ = self.0.try_send((Instant::now(), Arc::downgrade(object)));
        }
    }
}

async fn run(mut noted: mpsc::Receiver<Noted>) {
    let mut decoded = 0;
    while let Some((at, object)) = noted.recv().await {
        tokio::time::sleep_until(at + SETTLED).await;
        // Replaced and forgotten meanwhile: nobody will read it. (What the history still has is
        // not decoded either.)
        let Some(object) = object.upgrade() else { continue };
        object.decode_ahead();
        decoded += 1;
        if decoded % AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
}
