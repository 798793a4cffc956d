//! Transactions in the making, and what comes of them; the size limit.

use std::sync::Arc;

use bytes::Bytes;
use quorate_objects::kinds;
use quorate_store::{
    Compare, Consistency, DeleteRangeRequest, KeyRange, KeyValue, MAX_COMMAND_BYTES, Op, OpResult,
    PutRequest, RangeRequest, Term, TxnRequest,
};
use serde_json::Value;

use crate::error::RegistryError;
use crate::object::{Object, ObjectKey, look, without_revision};
use crate::registry::Registry;
use crate::stored::Stored;

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
        let response = self.inner.proposer.propose(txn, fence).await?;
        if response.succeeded {
            return Ok(Outcome::Done(response.revision));
        }
        let found = response.responses.into_iter().map(|response| match response.result {
            Some(OpResult::Range(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        Ok(Outcome::Failed(found.collect()))
    }

    /// Carries out a plan that puts the object of this key. What a look at its text has shown
    /// is returned, and is there for the cache when the change comes.
    pub(crate) async fn commit_object(
        &self,
        key: &ObjectKey,
        plan: Plan,
        stored: &Bytes,
        fence: Option<Term>,
    ) -> Result<(Outcome, Stored), RegistryError> {
        let seen = Arc::new(look(key.kind, stored)?);
        let store_key = key.store_key();
        if key.kind == &kinds::POD {
            self.inner.fresh.note(store_key.clone(), stored.clone(), Arc::clone(&seen));
        }
        let outcome = self.commit(plan, fence).await;
        if !matches!(outcome, Ok(Outcome::Done(_))) {
            self.inner.fresh.take(&store_key, stored);
        }
        let seen = Arc::try_unwrap(seen).unwrap_or_else(|shared| Stored::clone(&shared));
        Ok((outcome?, seen))
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
pub(crate) fn encode(value: &mut Value) -> Result<Bytes, RegistryError> {
    let stored = without_revision(value);
    check_length(value["kind"].as_str().unwrap_or("the object"), &stored)?;
    Ok(stored)
}

/// Refuses text that is too large to be stored.
pub(crate) fn check_length(kind: &str, stored: &[u8]) -> Result<(), RegistryError> {
    let limit = MAX_COMMAND_BYTES - OVERHEAD;
    if stored.len() > limit {
        let what = format!("{kind} as JSON");
        return Err(RegistryError::TooLarge { what, size: stored.len(), limit });
    }
    Ok(())
}

/// Refuses what is too large before anything is done with it. What is slightly too large may
/// pass: [`encode`] is exact.
pub(crate) fn check_size(value: &mut Value) -> Result<(), RegistryError> {
    if at_least(value) > MAX_COMMAND_BYTES - OVERHEAD { encode(value).map(|_| ()) } else { Ok(()) }
}

/// A lower bound of the length of the JSON text.
fn at_least(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 1,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| at_least(item) + 1).sum::<usize>() + 1,
        Value::Object(map) => {
            map.iter().map(|(key, value)| key.len() + 4 + at_least(value)).sum::<usize>() + 1
        }
    }
}

/// The present as objects carry it.
pub(crate) fn now_text() -> String {
    quorate_objects::time::format(quorate_objects::time::timestamp())
}
