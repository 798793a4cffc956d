//! Tasks that run as long as the agent does: the pod network, the runtime's events, and the
//! file of assignments. Each survives every failure and tries again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use quorate_objects::storage;
use quorate_proto::v1;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::agent::Internal;
use crate::assignments::Shared;
use crate::pods::worker::{Context, Network};
use crate::runtime::{Runtime, RuntimeError};

const RETRY: Duration = Duration::from_secs(2);
/// A network or firewall rule that somebody removed comes back.
const RECHECK: Duration = Duration::from_secs(60);
/// Between two questions whether the runtime still answers.
const PING: Duration = Duration::from_secs(5);
/// A runtime that does not answer within this time hangs: its events may just be missing.
const SILENCE: Duration = Duration::from_secs(10);

/// Keeps the pod network in the range that the cluster gave.
pub(crate) fn network(
    runtime: Arc<dyn Runtime>,
    mut cidr: watch::Receiver<Option<String>>,
    state: watch::Sender<Network>,
    cancel: CancellationToken,
) {
    let work = async move {
        loop {
            let wanted = cidr.borrow_and_update().clone();
            let mut wait = RECHECK;
            if let Some(range) = wanted {
                let next = match runtime.ensure_network(&range).await {
                    Ok(()) => Network::Ready,
                    Err(error) => {
                        wait = RETRY;
                        Network::Waiting(error.to_string())
                    }
                };
                state.send_if_modified(|present| {
                    if *present == next {
                        return false;
                    }
                    if let Network::Waiting(why) = &next {
                        warn!("{why}");
                    }
                    *present = next;
                    true
                });
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = cidr.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::spawn(cancel.run_until_cancelled_owned(work));
}

/// Passes the runtime's events on, and tells when it does not answer. The events of one that has
/// ended end, too; one that hangs just sends none, so it is asked now and then.
pub(crate) fn events(
    runtime: Arc<dyn Runtime>,
    out: mpsc::Sender<Internal>,
    cancel: CancellationToken,
) {
    let work = async move {
        let mut down = false;
        while !out.is_closed() {
            let trouble = match in_time(runtime.events()).await {
                Ok(stream) => {
                    if std::mem::take(&mut down) {
                        info!("the container runtime answers again");
                    }
                    let _ = out.send(Internal::Runtime(None)).await;
                    let _ = out.send(Internal::Resync).await;
                    pass_on(stream, runtime.as_ref(), &out).await
                }
                Err(error) => Some(error),
            };
            if let Some(error) = trouble {
                if !std::mem::replace(&mut down, true) {
                    error!("{error}");
                }
                let _ = out.send(Internal::Runtime(Some(error.to_string()))).await;
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::spawn(cancel.run_until_cancelled_owned(work));
}

/// Passes events on until they end, or until the runtime does not answer; answers why not.
async fn pass_on(
    mut events: BoxStream<'static, String>,
    runtime: &dyn Runtime,
    out: &mpsc::Sender<Internal>,
) -> Option<RuntimeError> {
    let silence = async {
        loop {
            tokio::time::sleep(PING).await;
            if let Err(error) = in_time(runtime.info()).await {
                return error;
            }
        }
    };
    let mut silence = std::pin::pin!(silence);
    loop {
        tokio::select! {
            uid = events.next() => {
                let _ = out.send(Internal::Pod(uid?)).await;
            }
            error = &mut silence => return Some(error),
        }
    }
}

/// An answer of the runtime, if it comes before it has to be taken for hanging.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let limited = tokio::time::timeout(SILENCE, answer).await;
    limited.unwrap_or(Err(RuntimeError::Timeout("ping")))
}

/// Removes the data of volumes that are to go, and tells so. One that is still in use is tried
/// again.
pub(crate) fn remove_data(context: Arc<Context>, doomed: Arc<Notify>, cancel: CancellationToken) {
    let work = async move {
        loop {
            doomed.notified().await;
            while !remove_doomed(&context).await {
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    tokio::spawn(cancel.run_until_cancelled_owned(work));
}

/// Says whether all is done.
async fn remove_doomed(context: &Context) -> bool {
    let volumes = context.objects.read().volumes();
    let mut done = true;
    for volume in volumes {
        let Some(data) = storage::data_to_remove(&volume) else { continue };
        if data.node != context.node_name {
            continue;
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        match context.runtime.remove_volume(data.name).await {
            Ok(()) => {
                info!(volume = data.name, "removed the data of a volume");
                let (name, uid) = (text(&volume.metadata.name), text(&volume.metadata.uid));
                context.outbox.removed(v1::RemovedVolume { name, uid });
            }
            Err(error) => {
                warn!(volume = data.name, %error, "cannot remove the data of a volume yet");
                done = false;
            }
        }
    }
    done
}

/// Writes the assignments down after each change; several changes may share one write.
pub(crate) fn save(shared: Shared, dirty: Arc<Notify>, file: PathBuf, cancel: CancellationToken) {
    let work = async move {
        loop {
            dirty.notified().await;
            let (copy, path) = (shared.read().clone(), file.clone());
            let saved = tokio::task::spawn_blocking(move || copy.save(&path)).await;
            if let Ok(Err(error)) = saved {
                error!(%error, "cannot keep the assignments; trying again");
                tokio::time::sleep(RETRY).await;
                dirty.notify_one();
            }
        }
    };
    tokio::spawn(cancel.run_until_cancelled_owned(work));
}

#[cfg(test)]
#[path = "background_test.rs"]
mod tests;
