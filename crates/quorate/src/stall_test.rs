#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::sync::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What this thread says goes here: as long as the guard lives.
    fn hear(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let told = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_default(told)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

const BLOCKED: &str = "the runtime was blocked";

/// Blocks the runtime; `stood_still`: the thread of `stall` did not run either. Returns when the
/// task has judged that, which takes it twice [`LOOK`].
async fn block(stall: &Stall, stood_still: bool) {
    tokio::time::sleep(LOOK / 2).await;
    thread::sleep(Duration::from_millis(1_500));
    if stood_still {
        // More than that: this machine may have been busy, too.
        stall.missed.fetch_add(60_000, Relaxed);
    }
    tokio::time::sleep(LOOK * 4).await;
}

/// In a runtime of one thread, which is the one that writes into the log.
#[tokio::test]
async fn a_blocked_runtime_is_told() {
    let log = Log::default();
    let _guard = log.hear();
    let stall = Stall::start().unwrap();
    stall.watch(&Handle::current(), "test");
    let begin = Instant::now();
    // Again and again: a thread that was late by chance at that moment has missed it as well.
    while !log.text().contains(BLOCKED) {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing is said: {}", log.text());
        block(&stall, false).await;
    }
}

#[tokio::test]
async fn a_machine_that_does_not_run_us_is_not_taken_for_a_blocked_runtime() {
    let log = Log::default();
    let _guard = log.hear();
    let stall = Stall { missed: Arc::default() };
    stall.watch(&Handle::current(), "test");
    block(&stall, true).await;
    let text = log.text();
    assert!(!text.contains(BLOCKED), "{text}");
}
