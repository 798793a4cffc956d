//! A failure after which the process must exit: the supervisor restarts it, and recovery runs.

use std::sync::Arc;

use tokio::sync::watch;

/// Remembers the first fatal failure and tells everyone who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Fatal(Arc<watch::Sender<Option<String>>>);

impl Fatal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Records a failure. Only the first one counts: the others follow from it.
    pub(crate) fn signal(&self, reason: String) {
        self.0.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            tracing::error!(%reason, "fatal failure of the store, the process must stop");
            *first = Some(reason);
            true
        });
    }

    /// Resolves when a failure was recorded.
    pub(crate) async fn wait(&self) -> String {
        let mut receiver = self.0.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(reason) => reason.unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => std::future::pending().await,
        }
    }
}
