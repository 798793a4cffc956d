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

/// In a runtime of one thread, which is the one that writes into `log`.
#[tokio::test]
async fn a_blocked_runtime_is_told_from_a_machine_that_does_not_run_us() {
    let log = Log::default();
    let writer = log.clone();
    let told = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(told);
    Stall::start().unwrap().watch(&Handle::current(), "test");
    tokio::time::sleep(LOOK / 2).await;
    thread::sleep(Duration::from_millis(1_500));
    let begin = Instant::now();
    loop {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        if text.contains("the runtime was blocked") {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing is said: {text}");
        tokio::time::sleep(LOOK).await;
    }
}
