//! Says when this process stood still. A master that does not run for a second loses its office
//! though neither network nor disk is at fault, and then its log must say why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// What is not worth a word: half of what a follower waits for a heartbeat at most.
const TOLERATED: Duration = Duration::from_millis(400);

/// Watches for as long as the process lives: a thread that does nothing but sleep, and a task that
/// does the same. What both have missed the machine did not give us; what the task alone has missed
/// is our own doing: something blocks the runtime.
pub fn watch() {
    let machine = Arc::new(AtomicU64::new(0));
    let missed = Arc::clone(&machine);
    let thread = thread::Builder::new().name("stall".into()).spawn(move || {
        loop {
            let begin = Instant::now();
            thread::sleep(LOOK);
            let late = begin.elapsed().saturating_sub(LOOK);
            missed.fetch_add(millis(late), Relaxed);
            if late > TOLERATED {
                let ms = millis(late);
                tracing::warn!(
                    ms,
                    "did not run: the machine is overloaded, or stopped the process"
                );
            }
        }
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "nobody notices when this process stands still");
        return;
    }
    // Task "stall": lives as long as the process; it has nothing that can fail.
    tokio::spawn(async move {
        loop {
            let (begin, before) = (Instant::now(), machine.load(Relaxed));
            tokio::time::sleep(LOOK).await;
            // The thread may not have counted yet what both have missed.
            let late = millis(begin.elapsed().saturating_sub(LOOK));
            if late <= millis(TOLERATED) {
                continue;
            }
            tokio::time::sleep(LOOK * 2).await;
            let ms = late.saturating_sub(machine.load(Relaxed) - before);
            if ms > millis(TOLERATED) {
                tracing::warn!(ms, "the runtime was blocked: requests and heartbeats had to wait");
            }
        }
    });
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "stall_test.rs"]
mod tests;
