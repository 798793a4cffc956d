#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt as _;
use quorate_proto::etcd::etcdserverpb as pb;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv as _;
use quorate_proto::etcd::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcd::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use crate::etcd::Etcd;
use crate::etcd::testing::{etcd, etcd_with, put_of, soon};

/// A client's end of a watch stream.
struct Client {
    requests: mpsc::Sender<Result<pb::WatchRequest, Status>>,
    responses: super::Responses,
}

impl Client {
    fn of(etcd: &Etcd) -> Self {
        let (requests, inbound) = mpsc::channel(64);
        let guard = etcd.guard(&Request::new(())).unwrap();
        let responses = etcd.watch_stream(guard, ReceiverStream::new(inbound));
        Self { requests, responses }
    }

    async fn ask(&self, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.requests.send(Ok(request)).await.unwrap();
    }

    /// Creates a watch and takes the confirmation.
    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        let created = self.next().await;
        assert!(created.created, "{created:?}");
        created
    }

    async fn next(&mut self) -> pb::WatchResponse {
        soon(self.responses.next()).await.unwrap().unwrap()
    }

    /// Events until there are `count`, as "id:+key" and "id:-key".
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            for event in response.events {
                let sign = if event.r#type() == EventType::Put { '+' } else { '-' };
                let key = event.kv.unwrap().key;
                let key = String::from_utf8_lossy(&key).into_owned();
                events.push(format!("{}:{sign}{key}", response.watch_id));
            }
        }
        events
    }
}

fn on(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

fn prefix(text: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { range_end: quorate_store::prefix_end(text.as_bytes()), ..on(text) }
}

#[tokio::test]
async fn many_watches_share_a_stream() {
    let etcd = etcd().await;
    let mut client = Client::of(&etcd);
    assert_eq!(client.create(on("a")).await.watch_id, 0);
    assert_eq!(client.create(prefix("b")).await.watch_id, 1);
    assert_eq!(client.create(pb::WatchCreateRequest { watch_id: 7, ..on("c") }).await.watch_id, 7);
    etcd.must_put("a", "").await;
    assert_eq!(client.events(1).await, ["0:+a"]);
    etcd.must_put("b1", "").await;
    assert_eq!(client.events(1).await, ["1:+b1"]);
    etcd.must_put("c", "").await;
    etcd.must_delete("c").await;
    assert_eq!(client.events(2).await, ["7:+c", "7:-c"]);

    client.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })).await;
    let canceled = client.next().await;
    assert!(canceled.canceled && canceled.watch_id == 1, "{canceled:?}");
    etcd.must_put("b2", "").await;
    etcd.must_put("a", "").await;
    assert_eq!(client.events(1).await, ["0:+a"], "a cancelled watch says nothing");
}

#[tokio::test]
async fn history_filters_and_previous_values() {
    let etcd = etcd().await;
    let first = etcd.must_put("a", "1").await;
    etcd.must_put("a", "2").await;
    etcd.must_delete("a").await;
    let mut client = Client::of(&etcd);
    let start = pb::WatchCreateRequest { start_revision: first, prev_kv: true, ..on("a") };
    client.create(start.clone()).await;
    let response = client.next().await;
    let values: Vec<_> =
        response.events.iter().map(|e| e.prev_kv.as_ref().map(|kv| kv.value.clone())).collect();
    assert_eq!(values, [None, Some("1".into()), Some("2".into())]);
    assert!(response.header.unwrap().revision >= 4);
    let filtered = |filter: FilterType| pb::WatchCreateRequest {
        filters: vec![filter.into()],
        ..start.clone()
    };
    client.create(filtered(FilterType::Noput)).await;
    assert_eq!(client.events(1).await, ["1:-a"]);
    client.create(filtered(FilterType::Nodelete)).await;
    assert_eq!(client.events(2).await, ["2:+a", "2:+a"]);
}

#[tokio::test]
async fn a_compacted_start_is_created_and_cancelled_with_the_revision() {
    let etcd = etcd().await;
    for value in ["1", "2", "3"] {
        etcd.must_put("a", value).await;
    }
    etcd.must_compact(3).await;
    let mut client = Client::of(&etcd);
    client.create(pb::WatchCreateRequest { start_revision: 2, ..on("a") }).await;
    let canceled = client.next().await;
    assert!(canceled.canceled, "{canceled:?}");
    assert_eq!(canceled.compact_revision, 3);
    client.create(pb::WatchCreateRequest { start_revision: 3, ..on("a") }).await;
    assert_eq!(client.events(2).await, ["1:+a", "1:+a"]);
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_in_the_stream() {
    let etcd = etcd().await;
    let mut client = Client::of(&etcd);
    let empty = pb::WatchCreateRequest { range_end: "a".into(), ..on("b") };
    let refused = client.create(empty).await;
    assert!(refused.canceled && refused.watch_id == -1, "{refused:?}");
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    client.create(pb::WatchCreateRequest { watch_id: 5, ..on("a") }).await;
    let twice = client.create(pb::WatchCreateRequest { watch_id: 5, ..on("a") }).await;
    assert!(twice.canceled, "{twice:?}");
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    etcd.must_put("a", "").await;
    assert_eq!(client.events(1).await, ["5:+a"], "the stream goes on");
}

#[tokio::test]
async fn progress_is_told_when_all_has_been_delivered() {
    let etcd = etcd().await;
    let mut client = Client::of(&etcd);
    client.create(on("a")).await;
    etcd.must_put("a", "").await;
    let last = etcd.must_put("other", "").await;
    client.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let event = client.next().await;
    assert_eq!(event.events.len(), 1, "never ahead of events: {event:?}");
    let progress = client.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.unwrap().revision, last);
}

#[tokio::test]
async fn quiet_watches_are_told_of_progress_by_themselves() {
    let etcd = etcd_with(|options| options.progress_notify = Duration::from_millis(50)).await;
    let mut client = Client::of(&etcd);
    client.create(pb::WatchCreateRequest { progress_notify: true, ..on("a") }).await;
    client.create(on("b")).await;
    let revision = etcd.must_put("other", "").await;
    loop {
        let progress = client.next().await;
        assert_eq!((progress.watch_id, progress.events.len(), progress.canceled), (0, 0, false));
        if progress.header.unwrap().revision == revision {
            break;
        }
    }
}

#[tokio::test]
async fn large_revisions_travel_in_fragments_when_the_client_takes_them() {
    let etcd = etcd().await;
    let value = "x".repeat(100 * 1024);
    let ops = (0..14).map(|i| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put_of(&format!("k{i:02}"), &value))),
    });
    let mut client = Client::of(&etcd);
    client.create(pb::WatchCreateRequest { fragment: true, ..prefix("k") }).await;
    client.create(prefix("k")).await;
    let request = pb::TxnRequest { success: ops.collect(), ..Default::default() };
    etcd.txn(Request::new(request)).await.unwrap();
    let (mut fragments, mut whole) = (Vec::new(), Vec::new());
    while fragments.last().is_none_or(|(_, more)| *more) || whole.is_empty() {
        let response = client.next().await;
        let list = if response.watch_id == 0 { &mut fragments } else { &mut whole };
        list.push((response.events.len(), response.fragment));
    }
    assert_eq!(fragments, [(11, true), (3, false)]);
    assert_eq!(whole, [(14, false)]);
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_nothing_and_holds_up_nobody() {
    let etcd = etcd().await;
    let mut slow = Client::of(&etcd);
    slow.create(prefix("k")).await;
    // More than the queue and the store's ring of recent events hold.
    for i in 0..6_000 {
        etcd.must_put(&format!("k{i}"), "").await;
    }
    let events = slow.events(6_000).await;
    assert!(events.iter().enumerate().all(|(i, event)| *event == format!("0:+k{i}")));
}

#[tokio::test]
async fn streams_end_when_the_master_does() {
    let etcd = etcd().await;
    let mut client = Client::of(&etcd);
    client.create(on("a")).await;
    etcd.cancel.cancel();
    let status = soon(client.responses.next()).await.unwrap().unwrap_err();
    assert_eq!(status.message(), "etcdserver: server stopped");
    assert!(soon(client.responses.next()).await.is_none());
}
