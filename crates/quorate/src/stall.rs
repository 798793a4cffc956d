//! Says when this process stood still. A master that does not run for a second loses its office
//! though neither network nor disk is at fault, and then its log must say why.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// What is not worth a word: half of what a follower waits for a heartbeat at most.
const TOLERATED: Duration = Duration::from_millis(400);

/// A thread that does nothing but sleep, for as long as the process lives. What it has missed the
/// machine did not give us.
pub struct Stall {
    missed: Arc<AtomicU64>,
}

impl Stall {
    /// Starts the thread; without it nobody notices when this process stands still.
    pub fn start() -> io::Result<Self> {
        let missed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&missed);
        thread::Builder::new().name("stall".into()).spawn(move || {
            loop {
                let begin = Instant::now();
                thread::sleep(LOOK);
                let late = begin.elapsed().saturating_sub(LOOK);
                count.fetch_add(millis(late), Relaxed);
                if late > TOLERATED {
                    let ms = millis(late);
                    tracing::warn!(
                        ms,
                        "did not run: the machine is overloaded, or stopped the process"
                    );
                }
            }
        })?;
        Ok(Self { missed })
    }

    /// Starts a task in that runtime that does the same. What the thread has not missed as well is
    /// our own doing: something blocks the runtime.
    pub fn watch(&self, runtime: &Handle, name: &'static str) {
        let missed = Arc::clone(&self.missed);
        // Task "stall": lives as long as the runtime; it has nothing that can fail.
        runtime.spawn(async move {
            loop {
                let (begin, before) = (Instant::now(), missed.load(Relaxed));
                tokio::time::sleep(LOOK).await;
                // The thread may not have counted yet what both have missed.
                let late = millis(begin.elapsed().saturating_sub(LOOK));
                if late <= millis(TOLERATED) {
                    continue;
                }
                tokio::time::sleep(LOOK * 2).await;
                let ms = late.saturating_sub(missed.load(Relaxed) - before);
                if ms > millis(TOLERATED) {
                    tracing::warn!(ms, name, "the runtime was blocked: what it does had to wait");
                }
            }
        });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "stall_test.rs"]
mod tests;
