//! Proposing transactions: retries that are safe, deadlines, the size limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use quorate_store::{
    Command, Compare, Consistency, DeleteRangeRequest, KeyRange, KeyValue, MAX_COMMAND_BYTES, Op,
    OpResult, PutRequest, RangeRequest, StoreError, Term, TxnRequest, TxnResponse,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::registry::Registry;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MOST: Duration = Duration::from_millis(500);
/// Room for what a command holds besides the object.
const OVERHEAD: usize = 16 * 1024;

/// A transaction in the making.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    compare: Vec<Compare>,
    success: Vec<Op>,
    failure: Vec<Op>,
}

impl Plan {
    /// The key must be at this revision (0: must not exist). When it is not, what is there is
    /// returned: see [`Outcome::Failed`].
    pub fn expect(&mut self, key: Bytes, revision: u64) {
        self.compare.push(Compare::mod_revision(key.clone(), revision));
        self.failure.push(Op::Range(RangeRequest::key(key)));
    }

    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.success.push(Op::Put(PutRequest { key, value, ..PutRequest::default() }));
    }

    pub fn delete(&mut self, key: Bytes) {
        let range = KeyRange::single(key);
        self.success.push(Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false }));
    }
}

/// What came of a [`Plan`].
pub(crate) enum Outcome {
    /// Done, at this revision.
    Done(u64),
    /// Something was not as expected: what is there, in the order of the expectations.
    Failed(Vec<Option<KeyValue>>),
}

impl Registry {
    /// Carries out a plan, once, whatever happens to leaders meanwhile.
    pub(crate) async fn commit(
        &self,
        plan: Plan,
        fence: Option<Term>,
    ) -> Result<Outcome, RegistryError> {
        let txn = TxnRequest {
            compare: plan.compare,
            success: plan.success.into_iter().map(Into::into).collect(),
            failure: plan.failure.into_iter().map(Into::into).collect(),
        };
        let mut command = Command::from(txn);
        command.fence = fence.unwrap_or(0);
        command.request_id = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
        let response = self.propose(command).await?;
        if response.succeeded {
            return Ok(Outcome::Done(response.revision));
        }
        let found = response.responses.into_iter().map(|response| match response.result {
            Some(OpResult::Range(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        Ok(Outcome::Failed(found.collect()))
    }

    /// Proposes until the deadline. The request id makes that safe even when it is not known
    /// what came of the attempt before.
    async fn propose(&self, command: Command) -> Result<TxnResponse, RegistryError> {
        let deadline = Instant::now() + self.inner.options.request_timeout;
        let mut backoff = BACKOFF_FIRST;
        let mut unknown: Option<RegistryError> = None;
        loop {
            let attempt = self.inner.store.propose(command.clone());
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(result)) => {
                    return result.txn.ok_or_else(|| {
                        RegistryError::Internal("a transaction without an answer".into())
                    });
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    let text = "no answer before the deadline".to_owned();
                    return Err(unknown.unwrap_or(RegistryError::OutcomeUnknown(text)));
                }
            };
            let lost = matches!(error, StoreError::OutcomeUnknown(_));
            if !lost && !error.retryable() {
                return Err(error.into());
            }
            // The store has sought a leader for as long as it may, and nothing was written: to go
            // on would turn a definite answer into an open one.
            let definite = matches!(error, StoreError::Unavailable { .. }) && unknown.is_none();
            let error = RegistryError::from(error);
            if definite {
                return Err(error);
            }
            if lost {
                unknown = Some(error.clone());
            }
            let pause = backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            if Instant::now() + pause >= deadline {
                return Err(unknown.unwrap_or(error));
            }
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }

    /// The object as the cache has it, or else as the store has it.
    pub(crate) async fn load(&self, key: &ObjectKey) -> Result<Loaded, RegistryError> {
        if let Some(object) = self.inner.cache.get(key.kind, &key.namespace, &key.name) {
            return Ok(Loaded { object, verified: false });
        }
        self.reload(key).await
    }

    /// The object as the store has it now.
    pub(crate) async fn reload(&self, key: &ObjectKey) -> Result<Loaded, RegistryError> {
        let request = RangeRequest::key(key.store_key());
        let answer = self.inner.store.range(request, Consistency::Linearizable).await?;
        let object = decode_kv(key, answer.kvs.first())?.ok_or_else(|| key.not_found())?;
        Ok(Loaded { object, verified: true })
    }
}

/// An object that a decision will be based on.
pub(crate) struct Loaded {
    pub object: Arc<Object>,
    /// Was it read from the store in this request? The cache may lag.
    pub verified: bool,
}

pub(crate) fn decode_kv(
    key: &ObjectKey,
    kv: Option<&KeyValue>,
) -> Result<Option<Arc<Object>>, RegistryError> {
    kv.map(|kv| Object::decode(key.kind, &kv.value, kv.mod_revision).map(Arc::new)).transpose()
}

/// The bytes to store: without the resourceVersion, which is the key's revision.
pub(crate) fn encode(value: &Value) -> Result<Bytes, RegistryError> {
    let mut value = value.clone();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    let stored: Bytes = value.to_string().into();
    let limit = MAX_COMMAND_BYTES - OVERHEAD;
    if stored.len() > limit {
        let what = format!("{} as JSON", value["kind"].as_str().unwrap_or("the object"));
        return Err(RegistryError::TooLarge { what, size: stored.len(), limit });
    }
    Ok(stored)
}

/// The present as objects carry it.
pub(crate) fn now_text() -> String {
    quorate_objects::time::format(Timestamp::now())
}
