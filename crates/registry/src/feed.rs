//! The task that feeds the cache from the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use quorate_objects::{custom, kinds};
use quorate_store::{
    Consistency, Event, EventType, KeyRange, KeyValue, RangeRequest, SharedStore, StoreError,
    WatchRequest,
};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Past};
use crate::fresh::Fresh;
use crate::object::{Object, ObjectKey, PREFIX};
use crate::stored::Stored;
use crate::warm::Warmer;

/// Keys read at once.
const PAGE: u64 = 1000;
const RETRY: Duration = Duration::from_millis(200);

/// Runs until cancelled. Failures are logged and retried: reads of the cache then time out.
pub(crate) async fn run(
    store: SharedStore,
    cache: Arc<Cache>,
    fresh: Arc<Fresh>,
    cancel: CancellationToken,
) {
    let warmer = Warmer::start(cancel.clone());
    let mut listed = false;
    loop {
        let step = async {
            if !listed {
                relist(&store, &cache, &warmer).await?;
                listed = true;
            }
            follow(&store, &cache, &fresh, &warmer).await
        };
        let result = tokio::select! {
            () = cancel.cancelled() => return,
            result = step => result,
        };
        if let Err(error) = result {
            if matches!(error, StoreError::Compacted(_)) {
                listed = false;
            }
            tracing::warn!(%error, "the registry's cache was interrupted, going on");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn relist(store: &SharedStore, cache: &Cache, warmer: &Warmer) -> Result<(), StoreError> {
    learn_all(store).await?;
    let everything = KeyRange::prefix(PREFIX);
    let mut request = RangeRequest { limit: PAGE, ..RangeRequest::new(everything) };
    let mut list = BTreeMap::new();
    loop {
        // The first page fixes the revision of the others.
        let page = store.range(request.clone(), Consistency::Serializable).await?;
        if request.revision == 0 {
            request.revision = page.revision;
        }
        for kv in &page.kvs {
            if let Some((key, object)) = decode(&kv.key, &kv.value, kv.mod_revision) {
                warmer.note(&object);
                list.insert(key, object);
            }
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
        let next = [last.key.as_ref(), &[0]].concat();
        request.range.key = Bytes::from(next);
    }
    if !cache.synced() {
        let (floor, history) = history(store, &list, request.revision, cache.capacity()).await?;
        cache.begin(request.revision, list, floor, history);
        return Ok(());
    }
    for old in cache.list(&kinds::CUSTOM_RESOURCE_DEFINITION, None) {
        if !list.contains_key(&old.key()) {
            custom::unregister(old.name());
        }
    }
    cache.reset(request.revision, list);
    Ok(())
}

/// The changes that led to the first list, and the revision after which they begin: as many as the
/// cache keeps, as far as the store still has them. So whoever has watched another master, or this
/// one before it was started again, goes on where it was.
async fn history(
    store: &SharedStore,
    list: &BTreeMap<ObjectKey, Arc<Object>>,
    revision: u64,
    capacity: usize,
) -> Result<(u64, Vec<Past>), StoreError> {
    let oldest = revision.saturating_sub(u64::try_from(capacity).unwrap_or(u64::MAX));
    let floor = oldest.max(store.status().compact_revision).min(revision);
    let mut watcher = store.watch(WatchRequest {
        range: KeyRange::prefix(PREFIX),
        start_revision: floor + 1,
        prev_kv: true,
        ..WatchRequest::default()
    })?;
    let (mut history, mut reached) = (Vec::new(), floor);
    // What is there twice is decoded once.
    let mut newest: HashMap<ObjectKey, Arc<Object>> = HashMap::new();
    while reached < revision {
        let batch = watcher.next().await?;
        reached = batch.revision;
        for event in batch.events.iter().filter(|event| event.kv.mod_revision <= revision) {
            // Of a kind that is gone.
            let Some(key) = ObjectKey::parse(&event.kv.key) else { continue };
            let at = |kv: &KeyValue| {
                let known = [newest.get(&key), list.get(&key)].into_iter().flatten();
                let known = known.into_iter().find(|object| object.revision == kv.mod_revision);
                let decode = || Object::decode(key.kind, &kv.value, kv.mod_revision).ok();
                known.cloned().or_else(|| decode().map(Arc::new))
            };
            let old = event.prev_kv.as_ref().and_then(at);
            let new = Some(&event.kv).filter(|_| event.kind == EventType::Put).and_then(at);
            match &new {
                Some(object) => newest.insert(key.clone(), Arc::clone(object)),
                None => newest.remove(&key),
            };
            if old.is_some() || new.is_some() {
                let revision = event.kv.mod_revision;
                history.push(Past { kind: key.kind, revision, old, new });
            }
        }
    }
    Ok((floor, history))
}

/// Reads the definitions of custom kinds: without them the keys of their objects say nothing. One
/// that is made between this and the list has no objects before its names are accepted, and that
/// is a change that comes later.
async fn learn_all(store: &SharedStore) -> Result<(), StoreError> {
    let resource = kinds::CUSTOM_RESOURCE_DEFINITION.resource();
    let range = KeyRange::prefix(format!("{PREFIX}{resource}/"));
    let found = store.range(RangeRequest::new(range), Consistency::Serializable).await?;
    for kv in &found.kvs {
        if let Some((key, definition)) = decode(&kv.key, &kv.value, kv.mod_revision) {
            learn(&key, Some(&definition));
        }
    }
    Ok(())
}

/// Keeps the table of custom kinds as the cluster has it.
fn learn(key: &ObjectKey, definition: Option<&Object>) {
    if *key.kind != kinds::CUSTOM_RESOURCE_DEFINITION {
        return;
    }
    match definition.map(Object::typed::<CustomResourceDefinition>) {
        None => custom::unregister(&key.name),
        Some(Ok(definition)) => custom::register(&definition),
        Some(Err(error)) => tracing::error!(name = key.name, %error, "a definition is broken"),
    }
}

async fn follow(
    store: &SharedStore,
    cache: &Cache,
    fresh: &Fresh,
    warmer: &Warmer,
) -> Result<(), StoreError> {
    let mut watcher = store.watch(WatchRequest {
        range: KeyRange::prefix(PREFIX),
        start_revision: cache.revision() + 1,
        ..WatchRequest::default()
    })?;
    loop {
        let batch = watcher.next().await?;
        let changes = batch.events.iter().filter_map(|event| change(event, fresh));
        let noted = changes.inspect(|(_, _, new)| new.iter().for_each(|new| warmer.note(new)));
        cache.apply(batch.revision, noted.collect::<Vec<_>>());
    }
}

fn change(event: &Event, fresh: &Fresh) -> Option<(ObjectKey, u64, Option<Arc<Object>>)> {
    let revision = event.kv.mod_revision;
    match event.kind {
        EventType::Put => {
            let (key, object) = match fresh.take(&event.kv.key, &event.kv.value) {
                Some(seen) => of_seen(&event.kv.key, seen, &event.kv.value, revision)?,
                None => decode(&event.kv.key, &event.kv.value, revision)?,
            };
            // Before the objects of its kind, which come later.
            learn(&key, Some(&object));
            Some((key, revision, Some(object)))
        }
        EventType::Delete => {
            let key = ObjectKey::parse(&event.kv.key)?;
            learn(&key, None);
            Some((key, revision, None))
        }
    }
}

/// What this master has written itself.
fn of_seen(
    key: &[u8],
    seen: Stored,
    value: &[u8],
    revision: u64,
) -> Option<(ObjectKey, Arc<Object>)> {
    let key = ObjectKey::parse(key)?;
    let object = Object::of_stored(key.kind, seen, value, revision).ok()?;
    Some((key, Arc::new(object)))
}

/// What cannot be decoded (a kind of a newer master, a write past the registry) is left out.
fn decode(key: &[u8], value: &[u8], revision: u64) -> Option<(ObjectKey, Arc<Object>)> {
    let Some(parsed) = ObjectKey::parse(key) else {
        tracing::warn!(key = %String::from_utf8_lossy(key), "a key of no kind that is served");
        return None;
    };
    match Object::decode(parsed.kind, value, revision) {
        Ok(object) => Some((parsed, Arc::new(object))),
        Err(error) => {
            tracing::error!(key = %String::from_utf8_lossy(key), %error, "left out of the cache");
            None
        }
    }
}

#[cfg(test)]
#[path = "feed_test.rs"]
mod tests;
