#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::command::{CommandKind, CompactRequest};
use crate::types::{KeyRange, TxnRequest};

#[tokio::test]
async fn it_is_a_store() {
    let store: Arc<dyn Store> = MemoryStore::new();
    let request = WatchRequest { range: KeyRange::all(), ..WatchRequest::default() };
    let mut watcher = store.watch(request).unwrap();
    let response = store.txn(TxnRequest::put("a", "1")).await.unwrap();
    assert_eq!(store.read_revision().await.unwrap(), response.revision);
    let found = store.range(RangeRequest::key("a"), Consistency::Linearizable).await.unwrap();
    assert_eq!(found.kvs[0].value, "1");
    assert_eq!(watcher.next().await.unwrap().events.len(), 1);
    assert_eq!(*store.applied().borrow(), response.revision);
    assert_eq!(store.status().revision, response.revision);
}

#[tokio::test]
async fn refusals_are_errors() {
    let store = MemoryStore::new();
    let kind = Some(CommandKind::Compact(CompactRequest { revision: 9 }));
    let compact = store.propose(Command { kind, ..Command::default() }).await;
    assert_eq!(compact, Err(StoreError::FutureRevision(1)));
    assert!(matches!(store.propose(Command::default()).await, Err(StoreError::Invalid(_))));
}

#[tokio::test]
async fn leadership_can_change() {
    let store = MemoryStore::new();
    let leadership = store.leadership();
    assert_eq!(leadership.borrow().ready, Some(1));
    let fenced = |fence| Command { fence, ..Command::from(TxnRequest::put("a", "1")) };
    store.propose(fenced(1)).await.unwrap();
    store.step_down();
    assert_eq!(leadership.borrow().ready, None);
    assert_eq!(store.status().role, Role::Follower);
    store.set_term(2);
    assert_eq!(leadership.borrow().ready, Some(2));
    assert_eq!(store.propose(fenced(1)).await, Err(StoreError::Fenced(2)));
    store.propose(fenced(2)).await.unwrap();
}
