//! The wall clock: the one place that asks the system what time it is, so that a test can turn
//! the clock of one process. `clippy.toml` refuses every other way.
//!
//! Whatever must last for some time (leases, elections, heartbeats, back-offs) is measured with
//! [`std::time::Instant`], which no one can turn. The wall clock is for what people read, and for
//! times that somebody outside has named.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Names a file beside the data directory, with the number of seconds by which the clock of this
/// process is wrong. Only debug builds look at it.
const VARIABLE: &str = "QUORATE_CLOCK_FILE";

/// Milliseconds between two looks at the file.
const LOOK: u64 = 50;

static TURNED: OnceLock<Turned> = OnceLock::new();

/// The present.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> SystemTime {
    let now = SystemTime::now();
    let seconds = TURNED.get().map_or(0, Turned::seconds);
    let by = Duration::from_secs(seconds.unsigned_abs());
    let turned = if seconds < 0 { now.checked_sub(by) } else { now.checked_add(by) };
    turned.unwrap_or(now)
}

/// The present, as the time since 1970 (UTC).
#[must_use]
pub fn since_epoch() -> Duration {
    now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// In a debug build that is asked to by `QUORATE_CLOCK_FILE`: lets the file there turn the clock
/// from now on. Creates the file, so that whoever wants to turn the clock knows that he can.
pub fn obey(data_dir: &Path) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else { return };
    let path = data_dir.with_file_name(path);
    if let Err(error) = std::fs::OpenOptions::new().append(true).create(true).open(&path) {
        tracing::error!(%error, path = %path.display(), "{VARIABLE} names a file that is of no use");
        return;
    }
    tracing::error!(path = %path.display(), "THE CLOCK OF THIS PROCESS CAN BE TURNED: {VARIABLE}");
    TURNED.get_or_init(|| Turned::by(path));
}

/// A clock that a file turns.
#[derive(Debug)]
struct Turned {
    path: PathBuf,
    since: Instant,
    /// When to look again, in milliseconds of `since`.
    look_at: AtomicU64,
    seconds: AtomicI64,
}

impl Turned {
    fn by(path: PathBuf) -> Self {
        let (look_at, seconds) = (AtomicU64::new(0), AtomicI64::new(0));
        Self { path, since: Instant::now(), look_at, seconds }
    }

    fn seconds(&self) -> i64 {
        let elapsed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.look_at.load(Ordering::Relaxed);
        let next = elapsed.saturating_add(LOOK);
        let mine = |due| {
            self.look_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if elapsed >= due && mine(due) {
            self.look();
        }
        self.seconds.load(Ordering::Relaxed)
    }

    fn look(&self) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // A file that is being written keeps what was said before.
        let Ok(seconds) = text.trim().parse::<i64>() else { return };
        if self.seconds.swap(seconds, Ordering::Relaxed) != seconds {
            tracing::error!(seconds, "THE CLOCK OF THIS PROCESS IS TURNED ON PURPOSE: {VARIABLE}");
        }
    }
}

#[cfg(test)]
#[path = "clock_test.rs"]
mod tests;
