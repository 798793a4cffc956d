//! A load generator: asks a service over HTTP all the time, and counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::{self, HttpError};

/// Longest time for one connection, and for one answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Error messages kept.
const MESSAGES: usize = 10;

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests begun and ended.
    pub sent: u64,
    /// Requests without a right answer from any address.
    pub failed: u64,
    /// Requests that met a closed address first and were answered at another.
    pub retried: u64,
}

impl Counts {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            failed: self.failed - earlier.failed,
            retried: self.retried - earlier.retried,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    messages: Mutex<Vec<String>>,
}

/// Workers that send requests until stopped, each over a new connection, taking the addresses
/// in turn. Who finds an address closed tries the next one, as any client with two addresses
/// would; a request that was sent is never repeated.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    workers: JoinSet<()>,
}

impl Load {
    /// Starts `workers` workers; each pauses for `pause` after a request. An answer is right
    /// when it contains `expected`.
    #[must_use]
    pub fn start(
        addresses: Vec<SocketAddr>,
        path: &'static str,
        expected: &'static str,
        workers: usize,
        pause: Duration,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let cancel = CancellationToken::new();
        let mut set = JoinSet::new();
        for first in 0..workers {
            let (shared, cancel) = (Arc::clone(&shared), cancel.clone());
            let mut addresses = addresses.clone();
            // Task "load worker": it cannot fail, and ends when cancelled.
            set.spawn(async move {
                let count = addresses.len().max(1);
                addresses.rotate_left(first % count);
                while !cancel.is_cancelled() {
                    ask(&shared, &addresses, path, expected).await;
                    addresses.rotate_left(1);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { shared, cancel, workers: set }
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.shared.sent.load(Ordering::SeqCst),
            failed: self.shared.failed.load(Ordering::SeqCst),
            retried: self.shared.retried.load(Ordering::SeqCst),
        }
    }

    /// The first error messages.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        self.shared.messages.lock().map(|messages| messages.clone()).unwrap_or_default()
    }

    /// Stops the workers; requests on their way are waited for.
    pub async fn stop(mut self) -> Counts {
        self.cancel.cancel();
        while self.workers.join_next().await.is_some() {}
        self.counts()
    }
}

async fn ask(shared: &Shared, addresses: &[SocketAddr], path: &str, expected: &str) {
    let mut result = Err("no address".to_owned());
    for (tried, address) in addresses.iter().enumerate() {
        match http::get(*address, path, LIMIT).await {
            Ok(body) if body.contains(expected) => {
                shared.retried.fetch_add(u64::from(tried > 0), Ordering::SeqCst);
                result = Ok(());
                break;
            }
            Ok(body) => {
                result = Err(format!("{address}: wrong answer: {body:?}"));
                break;
            }
            Err(error @ HttpError::Connect(_)) => result = Err(format!("{address}: {error}")),
            Err(error) => {
                result = Err(format!("{address}: {error}"));
                break;
            }
        }
    }
    if let Err(message) = result {
        shared.failed.fetch_add(1, Ordering::SeqCst);
        if let Ok(mut messages) = shared.messages.lock()
            && messages.len() < MESSAGES
        {
            messages.push(message);
        }
    }
    shared.sent.fetch_add(1, Ordering::SeqCst);
}

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;
