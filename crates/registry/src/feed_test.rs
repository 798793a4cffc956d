//! What a cache knows when it starts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use quorate_objects::Selector;
use quorate_store::{CommandKind, CompactRequest, MemoryStore, Store as _};
use serde_json::{Value, json};

use super::*;
use crate::{
    At, Code, DeleteOptions, EventKind, ListOptions, Registry, RegistryError, RegistryOptions,
    WriteOptions,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(store: &Arc<MemoryStore>, watch_ring: usize) -> Registry {
    let options = RegistryOptions { watch_ring, ..RegistryOptions::default() };
    let registry = Registry::start(store.clone(), options, CancellationToken::new());
    registry.wait_synced(PATIENCE).await.unwrap();
    registry
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": name, "namespace": "default", "labels": {"app": value}},
           "data": {"key": value}})
}

/// Maps are made, changed and removed; the revisions before the first and after the last change.
async fn live(registry: &Registry) -> (u64, u64) {
    let options = WriteOptions::default();
    registry.ensure_system_objects(Some(1)).await.unwrap();
    let first = registry.create(map("a", "x"), &options).await.unwrap().revision;
    registry.create(map("b", "x"), &options).await.unwrap();
    registry.update(map("a", "y"), &options).await.unwrap();
    registry.update(map("a", "z"), &options).await.unwrap();
    let kind = &kinds::CONFIG_MAP;
    let options_of_deletion = DeleteOptions::default();
    registry.delete(kind, "default", "b", &options_of_deletion).await.unwrap();
    let last = registry.create(map("b", "x"), &options).await.unwrap().revision;
    registry.cache().wait(last, PATIENCE).await.unwrap();
    (first - 1, last)
}

type Seen = (EventKind, u64, Option<Value>);

async fn watched(registry: &Registry, from: u64, to: u64) -> Result<Vec<Seen>, RegistryError> {
    // What a label selector says depends on what was there before, too.
    let x = Selector::parse("app in (x, z)").unwrap();
    let mut watcher = registry.watch(Some(&kinds::CONFIG_MAP), None, x, from)?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, revision, _)| *revision < to) {
        let event = tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap()?;
        let value = event.object.map(|object| object.value());
        seen.push((event.kind, event.revision, value));
    }
    Ok(seen)
}

#[tokio::test]
async fn a_cache_that_starts_knows_how_it_came_to_this() {
    let store = MemoryStore::new();
    let before = start(&store, 1024).await;
    let (from, to) = live(&before).await;
    let after = start(&store, 1024).await;
    let seen = watched(&before, from, to).await.unwrap();
    assert_eq!(watched(&after, from, to).await.unwrap(), seen);
    assert!(seen.iter().any(|(kind, ..)| *kind == EventKind::Deleted), "{seen:?}");
    for revision in from..=to {
        let options = ListOptions { at: At::Exactly(revision), ..ListOptions::default() };
        let list = async |registry: &Registry| {
            let kind = &kinds::CONFIG_MAP;
            let read = registry.list(kind, None, &options, Consistency::Serializable);
            let list = read.await.unwrap().items.into_iter();
            list.map(|object| (object.revision, object.value())).collect::<Vec<_>>()
        };
        assert_eq!(list(&after).await, list(&before).await, "as of revision {revision}");
    }
}

#[tokio::test]
async fn a_cache_that_starts_knows_no_more_than_the_store_or_its_room() {
    let store = MemoryStore::new();
    let (from, to) = live(&start(&store, 1024).await).await;
    let small = start(&store, 2).await;
    assert_eq!(watched(&small, from, to).await.unwrap_err().code(), Code::Gone);
    assert_eq!(watched(&small, to - 2, to).await.unwrap().len(), 2);
    let compact = CommandKind::Compact(CompactRequest { revision: to - 2 });
    store.propose(compact.into()).await.unwrap();
    let compacted = start(&store, 1024).await;
    assert_eq!(watched(&compacted, from, to).await.unwrap_err().code(), Code::Gone);
    assert_eq!(watched(&compacted, to - 2, to).await.unwrap().len(), 2);
}
