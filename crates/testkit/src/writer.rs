//! Writers that remember what was acknowledged, so that it can be asked for later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use quorate_client::{Client, ClientError, ListOptions, WriteOptions};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Label on every object that writers make.
const LABEL: &str = "quorate.dev/written-by";

/// Pause between two writes of one writer: writing must not starve what it watches.
const PAUSE: Duration = Duration::from_millis(5);

/// A ConfigMap in namespace `default`.
#[must_use]
pub fn config_map(name: &str, label: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {LABEL: label}},
        "data": {"value": value},
    })
}

/// One acknowledged write.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// When the call began.
    pub sent: Instant,
    /// When the answer was there.
    pub answered: Instant,
    /// Revision that the answer carried.
    pub revision: u64,
}

/// What writers have seen, by object name.
#[derive(Debug, Default)]
pub struct Journal {
    /// Creations that were acknowledged.
    pub acknowledged: BTreeMap<String, Acknowledged>,
    /// Creations that were refused: nothing of them may be there.
    pub refused: BTreeMap<String, String>,
    /// Creations whose outcome the answer called unknown.
    pub unknown: BTreeMap<String, String>,
}

/// Writers that create ConfigMaps as fast as they are acknowledged.
#[derive(Debug)]
pub struct Writers {
    label: String,
    journal: Arc<Mutex<Journal>>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts one writer per client.
    #[must_use]
    pub fn start(label: &str, clients: Vec<Client>) -> Self {
        let journal = Arc::new(Mutex::new(Journal::default()));
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, client) in clients.into_iter().enumerate() {
            let (journal, cancel) = (Arc::clone(&journal), cancel.clone());
            let label = label.to_owned();
            // Task "writer": it cannot fail, and ends when cancelled.
            tasks.spawn(async move {
                let mut count = 0_u64;
                while !cancel.is_cancelled() {
                    count += 1;
                    let name = format!("{label}-{number}-{count}");
                    write(&client, &label, name, &journal).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { label: label.to_owned(), journal, cancel, tasks }
    }

    /// What they have seen so far.
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// How long after `moment` the first write was acknowledged that was also begun after it.
    #[must_use]
    pub fn acknowledged_after(&self, moment: Instant) -> Option<Duration> {
        let journal = self.journal();
        let later = journal.acknowledged.values().filter(|write| write.sent >= moment);
        later.map(|write| write.answered - moment).min()
    }

    /// Waits until a write was acknowledged that was begun after `moment`, and says how long
    /// after it that was.
    ///
    /// # Errors
    /// When none is within a minute.
    pub async fn wait_acknowledged_after(&self, moment: Instant) -> Result<Duration> {
        let look = async || match self.acknowledged_after(moment) {
            Some(delay) => Ok(delay),
            None => bail!("refused: {:?}", self.journal().refused.last_key_value()),
        };
        let (delay, _) =
            crate::wait_for("acknowledged write", Duration::from_secs(60), look).await?;
        Ok(delay)
    }

    /// Stops the writers and returns what they have seen; calls on their way are waited for.
    pub async fn stop(mut self) -> (String, Journal) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
        (self.label, std::mem::take(&mut *lock(&self.journal)))
    }
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    // A panicking writer leaves whole entries behind, never half of one.
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(client: &Client, label: &str, name: String, journal: &Mutex<Journal>) {
    let sent = Instant::now();
    let value = config_map(&name, label, &name);
    let result = client.create(&value, &WriteOptions::default()).await;
    let answered = Instant::now();
    let mut journal = lock(journal);
    match result {
        Ok(object) => {
            let revision = object.revision;
            journal.acknowledged.insert(name, Acknowledged { sent, answered, revision });
        }
        Err(error) if is_unknown(&error) => drop(journal.unknown.insert(name, error.message)),
        Err(error) => drop(journal.refused.insert(name, error.message)),
    }
}

/// A timeout of ours says as little about the outcome as an answer that says so itself.
fn is_unknown(error: &ClientError) -> bool {
    error.outcome_unknown() || error.code == quorate_client::Code::DeadlineExceeded
}

/// Checks that the store holds exactly what was acknowledged, whole and at the revision that
/// the answer said; writes of unknown outcome may be there or not, refused ones must not.
///
/// # Errors
/// Names what is lost, changed, or there against its answer.
pub async fn check(client: &Client, label: &str, journal: &Journal) -> Result<()> {
    let options = ListOptions {
        namespace: "default".to_owned(),
        labels: format!("{LABEL}={label}"),
        ..ListOptions::default()
    };
    let found: BTreeMap<String, ConfigMap> = client
        .list_as::<ConfigMap>(&options)
        .await?
        .into_iter()
        .map(|map| (map.metadata.name.clone().unwrap_or_default(), map))
        .collect();
    for (name, write) in &journal.acknowledged {
        let Some(map) = found.get(name) else { bail!("acknowledged write {name} is lost") };
        let value = map.data.as_ref().and_then(|data| data.get("value"));
        ensure!(value == Some(name), "{name} holds {value:?}");
        let revision = map.metadata.resource_version.clone().unwrap_or_default();
        ensure!(revision == write.revision.to_string(), "{name}: {revision}, {write:?}");
    }
    for name in found.keys() {
        let refused = journal.refused.get(name);
        ensure!(refused.is_none(), "{name} is there, but was refused: {refused:?}");
        let known = journal.acknowledged.contains_key(name) || journal.unknown.contains_key(name);
        ensure!(known, "{name} is there, but nobody wrote it");
    }
    Ok(())
}
