//! Watchers of all objects of the run, from one revision on.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use quorate_client::{Client, ClientError, Event, ListOptions, Object, WatchOptions};
use quorate_proto::etcd::mvccpb;
use tokio_util::sync::CancellationToken;

use super::{Book, LABEL, NAMESPACE, OBJECTS, TRANSACTIONS, config_map_kind, lock, value_of};
use crate::etcd::{Etcd, text};
use crate::evidence::{WatchItem, WatchLog};

/// Pause before a watch that could not be opened is opened elsewhere.
const RETRY: Duration = Duration::from_millis(50);

/// How often a watcher of keys asks how far it has come, at most.
const PROGRESS: Duration = Duration::from_millis(100);

/// Watches until cancelled. A watch that ends with an error (its history is compacted, or
/// nobody answers) is one log; the next begins with a new list.
pub(super) async fn run(
    number: u32,
    client: Client,
    revision: u64,
    book: Arc<Book>,
    cancel: CancellationToken,
) {
    let place = place(&book, revision);
    let mut from = revision;
    let mut turn = 0;
    while !cancel.is_cancelled() {
        turn += 1;
        let mut log = WatchLog {
            name: format!("watcher {number}.{turn}"),
            prefix: OBJECTS.to_owned(),
            from,
            items: Vec::new(),
        };
        let options = WatchOptions {
            namespace: NAMESPACE.to_owned(),
            labels: LABEL.to_owned(),
            revision: from,
            ..WatchOptions::default()
        };
        let mut watch = client.watch(config_map_kind(), options);
        while let Some(Ok(event)) = cancel.run_until_cancelled(watch.next()).await {
            log.items.push(item(event));
            reach(&book, place, &log);
        }
        lock(&book.watches).push(log);
        // As every client does that is told its history is gone: list, and go on from there.
        while let Some(Err(_)) = cancel.run_until_cancelled(relist(&client, &mut from)).await {
            tokio::time::sleep(RETRY).await;
        }
        if let Some(reached) = lock(&book.reached).get_mut(place) {
            *reached = (*reached).max(from);
        }
    }
}

async fn relist(client: &Client, from: &mut u64) -> Result<(), ClientError> {
    *from = client.list(config_map_kind(), &ListOptions::default()).await?.revision;
    Ok(())
}

fn place(book: &Book, revision: u64) -> usize {
    let mut reached = lock(&book.reached);
    reached.push(revision);
    reached.len() - 1
}

/// Notes the newest revision that the watcher has seen something of.
fn reach(book: &Book, place: usize, log: &WatchLog) {
    let newest = match log.items.last() {
        Some(WatchItem::Change { revision, .. } | WatchItem::Bookmark(revision)) => *revision,
        _ => return,
    };
    if let Some(reached) = lock(&book.reached).get_mut(place) {
        *reached = (*reached).max(newest);
    }
}

/// Watches the keys of transactions by etcd's API until cancelled: one log, with a note where
/// the stream broke and was resumed.
pub(super) async fn run_etcd(
    number: u32,
    mut client: Etcd,
    revision: u64,
    book: Arc<Book>,
    cancel: CancellationToken,
) {
    let place = place(&book, revision);
    let mut log = WatchLog {
        name: format!("etcd watcher {number}"),
        prefix: TRANSACTIONS.to_owned(),
        from: revision,
        items: Vec::new(),
    };
    let mut complete = revision;
    while !cancel.is_cancelled() {
        let start = i64::try_from(complete + 1).unwrap_or(i64::MAX);
        let Ok(mut stream) = client.watch(TRANSACTIONS, start).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        if !log.items.is_empty() {
            log.items.push(WatchItem::Resumed(complete));
        }
        let mut ask = tokio::time::interval(PROGRESS);
        while let Some(Ok(response)) = cancel.run_until_cancelled(stream.next()).await {
            if response.canceled {
                break;
            }
            // While events come: that is when an answer may overtake one.
            if ask.tick().now_or_never().is_some() {
                stream.ask_progress();
            }
            let at = response.header.unwrap_or_default().revision;
            if response.events.is_empty() && !response.created {
                log.items.push(WatchItem::Bookmark(u64::try_from(at).unwrap_or(0)));
            }
            log.items.extend(response.events.iter().filter_map(etcd_item));
            if let Some(WatchItem::Change { revision, .. } | WatchItem::Bookmark(revision)) =
                log.items.last()
            {
                complete = complete.max(*revision);
            }
            reach(&book, place, &log);
        }
        client.move_on();
    }
    lock(&book.watches).push(log);
}

fn etcd_item(event: &mvccpb::Event) -> Option<WatchItem> {
    let number = |kv: &mvccpb::KeyValue| text(&kv.value).parse().ok();
    let kv = event.kv.as_ref()?;
    let put = event.r#type() == mvccpb::event::EventType::Put;
    Some(WatchItem::Change {
        revision: u64::try_from(kv.mod_revision).ok()?,
        key: text(&kv.key),
        value: if put { number(kv) } else { None },
        previous: Some(event.prev_kv.as_ref().and_then(number)),
    })
}

fn item(event: Event) -> WatchItem {
    let change = |object: &Object, value| WatchItem::Change {
        revision: object.revision,
        key: format!("{OBJECTS}{}", object.name),
        value,
        previous: None,
    };
    match event {
        Event::Added(object) | Event::Modified(object) => change(&object, value_of(&object.value)),
        Event::Deleted(object) => change(&object, None),
        Event::Bookmark(revision) => WatchItem::Bookmark(revision),
    }
}
