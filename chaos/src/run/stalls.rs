//! How late this machine wakes those who sleep. Where it stands still, nobody keeps their times:
//! not masters, not agents, not those who answer requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// How long it sleeps at a time.
const SLEEP: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Sleeper {
    asleep_since: Instant,
    /// How late it was woken at worst.
    worst: Duration,
}

impl Sleeper {
    fn note(&mut self) {
        self.worst = self.worst.max(self.asleep_since.elapsed().saturating_sub(SLEEP));
    }
}

/// Sleeps and looks at the clock, until it is dropped.
#[derive(Debug)]
pub(super) struct Stalls {
    sleeper: Arc<Mutex<Sleeper>>,
    _task: JoinSet<()>,
}

impl Stalls {
    pub(super) fn watch() -> Self {
        let sleeper = Sleeper { asleep_since: Instant::now(), worst: Duration::ZERO };
        let sleeper = Arc::new(Mutex::new(sleeper));
        let noted = Arc::clone(&sleeper);
        let mut task = JoinSet::new();
        // Task "stalls": it cannot fail, and ends with this value.
        task.spawn(async move {
            loop {
                lock(&noted).asleep_since = Instant::now();
                tokio::time::sleep(SLEEP).await;
                lock(&noted).note();
            }
        });
        Self { sleeper, _task: task }
    }

    /// The worst since this was asked last, in milliseconds. A stall that has just ended counts,
    /// though the sleeper may not have said so yet.
    pub(super) fn take_ms(&self) -> u64 {
        let mut sleeper = lock(&self.sleeper);
        sleeper.note();
        let worst = std::mem::take(&mut sleeper.worst);
        u64::try_from(worst.as_millis()).unwrap_or(u64::MAX)
    }
}

fn lock(sleeper: &Mutex<Sleeper>) -> MutexGuard<'_, Sleeper> {
    sleeper.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "stalls_test.rs"]
mod tests;
